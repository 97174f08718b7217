"""Recordings as parts of a chat, as DashScope hears them: what is sent, what is read, and what each failure becomes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatassist.adapters.asr.chat_transcriber import ChatTranscriber
from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.vendor import TranscriptionStyle
from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.errors import AsrTimeout, AsrUnavailable, AudioTooLarge, AudioUnsupported, ChatAssistError
from chatassist.domain.ports.asr import Hints
from tests.fixtures.logs import RUN
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, drips, fails, floods, hangs, redirects, resets, sends
from tests.integration.calling import calling

KEY = "sk-loopback-key-1234"
TELLTALE = "telltale-of-the-vendor"
JSON = "application/json"
SOUND = Sound(samples=bytes(range(256)) * 400)


@pytest.fixture
async def qwen(vendor: LoopbackVendor) -> AsyncIterator[ChatTranscriber]:
    RUN.keep_private(KEY, TELLTALE)
    route = CATALOGUE["qwen"].transcription
    assert route is not None
    assert route.style is TranscriptionStyle.CHAT
    made = ChatTranscriber(calling(vendor.base_url, KEY, "qwen"), route, silence=0.5)
    yield made
    await made.aclose()


def completion(content: object = "欢迎使用。", annotations: object = None, **more: Any) -> dict[str, Any]:
    """An answer as the vendor's reference shows it."""
    noted = [{"emotion": "neutral", "language": "zh", "type": "audio_info"}] if annotations is None else annotations
    message = {"annotations": noted, "content": content, "role": "assistant"}
    counts = {"completion_tokens": 12, "prompt_tokens": 42, "seconds": 1, "total_tokens": 54}
    choices = [{"finish_reason": "stop", "index": 0, "message": message}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": choices, "usage": counts, **more}


def answers(document: object) -> Behaviour:
    return sends(json.dumps(document).encode(), content_type=JSON)


# --- What is sent ---------------------------------------------------------------------------------------------------


async def test_the_sound_is_sent_whole_with_its_true_type(qwen: ChatTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(answers(completion()))
    await qwen.transcribe(SOUND)
    request = vendor.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == JSON
    sound = f"data:audio/wav;base64,{base64.b64encode(SOUND.wav()).decode()}"
    part = {"type": "input_audio", "input_audio": {"data": sound}}
    assert request.body == {
        "model": "qwen3-asr-flash",
        "stream": False,
        "messages": [{"role": "user", "content": [part]}],
    }


async def test_the_language_and_what_may_occur_are_sent(qwen: ChatTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(answers(completion()))
    await qwen.transcribe(SOUND, Hints(language="zh", prompt='"sound"、张三\ud83d'))
    body = vendor.requests[0].body
    assert body["asr_options"] == {"language": "zh"}
    assert body["messages"][0] == {"role": "system", "content": [{"type": "text", "text": '"sound"、张三\ud83d'}]}
    assert body["messages"][1]["content"][0]["input_audio"]["data"].startswith("data:audio/wav;base64,UklGR")


# --- What is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "heard"),
    [
        (completion(), Transcript(text="欢迎使用。", language="zh")),
        (completion(annotations=[]), Transcript(text="欢迎使用。", language="en")),
        (
            completion(annotations=["nonsense", {"language": 5}]),
            Transcript(text="欢迎使用。", language="en"),
        ),
        (completion(annotations={"language": "zh"}), Transcript(text="欢迎使用。", language="en")),
        (completion(usage=None), Transcript(text="欢迎使用。", language="zh")),
        (completion(usage={"seconds": -1}), Transcript(text="欢迎使用。", language="zh")),
        (
            completion([{"text": "欢迎"}, 7, {"text": None}, {"text": "使用。"}]),
            Transcript(text="欢迎使用。", language="zh"),
        ),
        (completion(""), Transcript(text="", language="zh")),
        (completion(None), Transcript(text="", language="zh")),
        (completion([]), Transcript(text="", language="zh")),
        (completion(" a\u0007b\ud83d\n"), Transcript(text="ab\ufffd", language="zh")),
        (completion(error=None, code=""), Transcript(text="欢迎使用。", language="zh")),
    ],
)
async def test_what_was_heard_is_read(
    qwen: ChatTranscriber, vendor: LoopbackVendor, document: object, heard: Transcript
) -> None:
    vendor.answers(answers(document))
    assert await qwen.transcribe(SOUND, Hints(language="en")) == heard


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>502</html>", "text/html"),
        (b'{"choices": [{"mess', JSON),
        (b"", JSON),
        (b"[" * 100_000, JSON),
        (b"null", JSON),
        (b'["hi"]', JSON),
        (b'{"choices": []}', JSON),
        (b'{"choices": [null]}', JSON),
        (b'{"choices": [{"message": null}]}', JSON),
        (b'{"choices": [{"message": {"role": "assistant"}}]}', JSON),
        (b'{"choices": [{"message": {"content": 5}}]}', JSON),
        (b'{"text": "hi"}', JSON),
        (b'data: {"choices": []}\n\n', "text/event-stream"),
        (b'{"error": {"message": "%s"}}' % TELLTALE.encode(), JSON),
        (b'{"choices": [{"message": {"content": ""}}], "error": {"message": "%s"}}' % TELLTALE.encode(), JSON),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_nonsense_is_unavailable(
    qwen: ChatTranscriber, vendor: LoopbackVendor, body: bytes, content_type: str
) -> None:
    vendor.answers(sends(body, content_type=content_type))
    with pytest.raises(AsrUnavailable) as caught:
        await qwen.transcribe(SOUND)
    assert TELLTALE not in str(caught.value)
    assert len(vendor.requests) == 1


# --- Failures -------------------------------------------------------------------------------------------------------


def refuses(status: int, code: str) -> Behaviour:
    return fails(status, {"error": {"code": code, "message": TELLTALE, "type": code}, "request_id": "r-1"})


@pytest.mark.parametrize(
    ("behaviour", "error", "retry_after"),
    [
        (refuses(401, "invalid_api_key"), AsrUnavailable, None),
        (refuses(400, "Arrearage"), AsrUnavailable, None),
        (refuses(400, "data_inspection_failed"), AsrUnavailable, None),
        (refuses(403, "access_denied"), AsrUnavailable, None),
        (refuses(404, "model_not_found"), AsrUnavailable, None),
        (refuses(429, "Throttling.RateQuota"), AsrUnavailable, 10),
        (fails(429, headers={"Retry-After": "7"}), AsrUnavailable, 7),
        (refuses(400, "InvalidParameter"), AudioUnsupported, None),
        (fails(413), AudioTooLarge, None),
        (fails(500, TELLTALE), AsrUnavailable, 10),
        (redirects("http://127.0.0.1:9/v1/chat/completions"), AsrUnavailable, None),
        (hangs(head=False), AsrTimeout, 5),
        (hangs(), AsrTimeout, 5),
        (resets(), AsrUnavailable, 10),
        (sends(b'{"choices": [', content_type=JSON, whole=False), AsrUnavailable, 10),
    ],
)
async def test_each_failure_becomes_one_of_ours_and_costs_one_call(
    qwen: ChatTranscriber,
    vendor: LoopbackVendor,
    behaviour: Behaviour,
    error: type[ChatAssistError],
    retry_after: float | None,
) -> None:
    vendor.answers(behaviour)
    with pytest.raises(error) as caught:
        await qwen.transcribe(SOUND)
    assert caught.value.retry_after == retry_after
    assert TELLTALE not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(vendor.requests) == 1


async def test_an_endless_answer_is_cut(qwen: ChatTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(floods(b" " * 10_000))
    with pytest.raises(AsrUnavailable, match="too large"):
        await qwen.transcribe(SOUND)
    await vendor.until(lambda: vendor.busy == 0)


@pytest.mark.parametrize("hints", [Hints(language="xx"), Hints(prompt="张三")])
async def test_hints_that_a_vendor_refuses_are_left_out(
    qwen: ChatTranscriber, vendor: LoopbackVendor, hints: Hints
) -> None:
    vendor.answers(refuses(400, "InvalidParameter"), answers(completion()))
    assert (await qwen.transcribe(SOUND, hints)).text == "欢迎使用。"
    body = vendor.requests[1].body
    assert "asr_options" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]


async def test_giving_up_ends_the_call_and_leaks_nothing(qwen: ChatTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(drips(b" ", every=0.02, times=1000))
    call = asyncio.ensure_future(qwen.transcribe(SOUND))
    await vendor.until(lambda: vendor.busy == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await vendor.until(lambda: vendor.busy == 0 and vendor.open_connections == 0)
    assert vendor.requests[0].abandoned


async def test_a_connection_is_used_again(qwen: ChatTranscriber, vendor: LoopbackVendor) -> None:
    for _ in range(3):
        vendor.answers(answers(completion()))
        await qwen.transcribe(SOUND)
    assert vendor.connections_ever == 1
