"""Whisper at a vendor: what is sent, what is read of many shapes of answers, and what each failure becomes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatassist.adapters.asr.whisper_api import WhisperApiTranscriber
from chatassist.adapters.vendor import TranscriptionRoute
from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.errors import (
    AsrTimeout,
    AsrUnavailable,
    AudioTooLarge,
    AudioUnsupported,
    ChatAssistError,
)
from chatassist.domain.ports.asr import NO_HINTS, Hints
from tests.fixtures.logs import RUN
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, drips, fails, floods, hangs, redirects, resets, sends
from tests.integration.calling import calling

KEY = "sk-loopback-key-1234"
TELLTALE = "telltale-of-the-vendor"
JSON = "application/json"
SOUND = Sound(samples=bytes(range(256)) * 400)
ROUTE = TranscriptionRoute(model="whisper-1")


@pytest.fixture
async def whisper(vendor: LoopbackVendor) -> AsyncIterator[WhisperApiTranscriber]:
    made = WhisperApiTranscriber(calling(vendor.base_url, KEY), ROUTE, silence=0.5)
    RUN.keep_private(KEY, TELLTALE)
    yield made
    await made.aclose()


def answers(document: object) -> Behaviour:
    return sends(json.dumps(document).encode(), content_type=JSON)


def form_of(vendor: LoopbackVendor, number: int = -1) -> dict[str, tuple[str, bytes]]:
    """Return headers and content of each part that the vendor was sent."""
    request = vendor.requests[number]
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n") for part in request.body.split(b"--" + boundary)[1:-1]]
    found = {}
    for head, _, content in parts:
        name = head.decode().partition('name="')[2].partition('"')[0]
        found[name] = (head.decode(), content.removesuffix(b"\r\n"))
    return found


async def test_the_sound_is_sent_whole_as_a_file_under_a_truthful_name(
    whisper: WhisperApiTranscriber, vendor: LoopbackVendor
) -> None:
    vendor.answers(answers({"text": "ok"}))
    await whisper.transcribe(SOUND)
    form = form_of(vendor)
    assert set(form) == {"file", "model"}
    assert form["file"][1] == SOUND.wav()
    assert 'filename="audio.wav"' in form["file"][0]
    assert "Content-Type: audio/wav" in form["file"][0]
    assert form["model"][1] == b"whisper-1"
    request = vendor.requests[-1]
    assert (request.method, request.path) == ("POST", "/v1/audio/transcriptions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"


async def test_hints_are_sent(whisper: WhisperApiTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(answers({"text": "ok"}))
    heard = await whisper.transcribe(SOUND, Hints(language="zh", prompt="张三、李四"))
    form = form_of(vendor)
    assert (form["language"][1], form["prompt"][1]) == (b"zh", "张三、李四".encode())
    assert heard.language == "zh"


@pytest.mark.parametrize(
    ("body", "content_type", "heard"),
    [
        (b'{"text": " hi "}', JSON, Transcript(text="hi")),
        (b'{"text": ""}', JSON, Transcript(text="")),
        (b'\xef\xbb\xbf{"text": "hi"}', JSON, Transcript(text="hi")),
        (b'{"text": "hi"}', "text/plain", Transcript(text="hi")),
        (b'"hi"', JSON, Transcript(text="hi")),
        (b"hi there\n", "text/plain; charset=utf-8", Transcript(text="hi there")),
        (b"123", "text/plain", Transcript(text="123")),
        ("你好\x00".encode(), "application/octet-stream", Transcript(text="你好")),
        (b"", "text/plain", Transcript(text="")),
        (b'{"text": "a\\u0007b\\ud83d"}', JSON, Transcript(text="ab\ufffd")),
        (
            b'{"task": "transcribe", "language": "chinese", "duration": 2.5, "text": "hi", "segments": []}',
            JSON,
            Transcript(text="hi"),
        ),
        (
            b'{"text": "hi", "language": "yue", "duration": "2.5"}',
            JSON,
            Transcript(text="hi", language="yue"),
        ),
        (b'{"text": "hi", "usage": {"type": "duration", "seconds": 3}}', JSON, Transcript(text="hi")),
        (b'{"text": "hi", "duration": -1, "language": 5, "usage": null}', JSON, Transcript(text="hi")),
        (b'{"text": "hi", "error": null, "code": 0}', JSON, Transcript(text="hi")),
    ],
    ids=lambda value: repr(value)[:50] if isinstance(value, bytes) else "",
)
async def test_every_usual_shape_of_answer_is_read(
    whisper: WhisperApiTranscriber, vendor: LoopbackVendor, body: bytes, content_type: str, heard: Transcript
) -> None:
    vendor.answers(sends(body, content_type=content_type))
    assert await whisper.transcribe(SOUND) == heard


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>502</html>", "text/html"),
        (b"\n<!DOCTYPE html><html></html>", "text/plain"),
        (b'{"text": "cut', JSON),
        (b'{"words": []}', JSON),
        (b'{"text": null}', JSON),
        (b'{"text": ["hi"]}', JSON),
        (b'["hi"]', JSON),
        (b"12", JSON),
        (b"null", JSON),
        (b"", JSON),
        (b"[" * 100_000, JSON),
        (b'{"text": "\xff\xfe"}', JSON),
        (b'{"error": {"message": "%s"}}' % TELLTALE.encode(), JSON),
        (b'{"code": 50000, "message": "%s", "data": null}' % TELLTALE.encode(), JSON),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_nonsense_is_unavailable(
    whisper: WhisperApiTranscriber, vendor: LoopbackVendor, body: bytes, content_type: str
) -> None:
    vendor.answers(sends(body, content_type=content_type))
    with pytest.raises(AsrUnavailable) as caught:
        await whisper.transcribe(SOUND)
    assert TELLTALE not in str(caught.value)


FORMAT = {"error": {"message": f"Invalid file format. {TELLTALE}", "type": "invalid_request_error", "code": None}}


@pytest.mark.parametrize(
    ("behaviour", "error", "retry_after"),
    [
        (fails(401, {"error": {"message": f"Incorrect API key: {KEY}"}}), AsrUnavailable, None),
        (fails(401, TELLTALE), AsrUnavailable, None),
        (fails(403, {"error": {"message": TELLTALE}}), AsrUnavailable, None),
        (fails(404, {"error": {"code": "model_not_found"}}), AsrUnavailable, None),
        (fails(400, {"error": {"code": "model_not_found"}}), AsrUnavailable, None),
        (fails(402), AsrUnavailable, None),
        (fails(429, {"error": {"code": "insufficient_quota"}}), AsrUnavailable, None),
        (fails(429, headers={"Retry-After": "7"}), AsrUnavailable, 7),
        (fails(429), AsrUnavailable, 10),
        (fails(500, TELLTALE), AsrUnavailable, 10),
        (fails(503), AsrUnavailable, 10),
        (redirects("http://127.0.0.1:9/v1/audio/transcriptions"), AsrUnavailable, None),
        (fails(400, FORMAT), AudioUnsupported, None),
        (fails(415), AudioUnsupported, None),
        (fails(422), AudioUnsupported, None),
        (fails(413, {"error": {"message": "Maximum content size limit"}}), AudioTooLarge, None),
        (hangs(head=False), AsrTimeout, 5),
        (hangs(), AsrTimeout, 5),
        (resets(), AsrUnavailable, 10),
        (sends(b'{"text": "hi"}', content_type=JSON, whole=False), AsrUnavailable, 10),
        (sends(b'{"text": "hi"}', content_type=JSON, headers={"Content-Encoding": "gzip"}), AsrUnavailable, 10),
    ],
)
async def test_each_failure_becomes_one_of_ours_and_costs_one_call(
    whisper: WhisperApiTranscriber,
    vendor: LoopbackVendor,
    behaviour: Behaviour,
    error: type[ChatAssistError],
    retry_after: float | None,
) -> None:
    vendor.answers(behaviour)
    with pytest.raises(error) as caught:
        await whisper.transcribe(SOUND)
    assert caught.value.retry_after == retry_after
    assert TELLTALE not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(vendor.requests) == 1


async def test_an_endless_answer_is_cut(whisper: WhisperApiTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(floods(b"more and more " * 1000))
    with pytest.raises(AsrUnavailable, match="too large"):
        await whisper.transcribe(SOUND)
    await vendor.until(lambda: vendor.busy == 0)


@pytest.mark.parametrize("key", ["schlüssel-äöü", "with\nnewline"])
async def test_a_key_that_cannot_be_sent(vendor: LoopbackVendor, key: str) -> None:
    whisper = WhisperApiTranscriber(calling(vendor.base_url, key), ROUTE, silence=1)
    with pytest.raises(AsrUnavailable) as caught:
        await whisper.transcribe(SOUND)
    await whisper.aclose()
    assert key not in str(caught.value)
    assert caught.value.retry_after is None


async def test_nobody_there(vendor: LoopbackVendor) -> None:
    whisper = WhisperApiTranscriber(calling("http://127.0.0.1:9/v1", KEY), ROUTE, silence=1)
    with pytest.raises(AsrUnavailable):
        await whisper.transcribe(SOUND)
    await whisper.aclose()


async def test_hints_that_a_vendor_refuses_are_left_out(whisper: WhisperApiTranscriber, vendor: LoopbackVendor) -> None:
    vendor.answers(fails(400, {"error": {"message": "language is not supported"}}), answers({"text": "ok"}))
    assert (await whisper.transcribe(SOUND, Hints(language="zh", prompt="x"))).text == "ok"
    assert set(form_of(vendor, 1)) == {"file", "model"}
    assert form_of(vendor, 1)["file"][1] == SOUND.wav(), "the recording is sent again from its beginning"


@pytest.mark.parametrize("hints", [NO_HINTS, Hints(language="zh")])
async def test_a_recording_that_a_vendor_refuses_costs_at_most_two_calls(
    whisper: WhisperApiTranscriber, vendor: LoopbackVendor, hints: Hints
) -> None:
    vendor.script = fails(400, FORMAT)
    with pytest.raises(AudioUnsupported):
        await whisper.transcribe(SOUND, hints)
    assert len(vendor.requests) == (1 if hints == NO_HINTS else 2)


async def test_giving_up_ends_the_call_and_leaks_nothing(
    whisper: WhisperApiTranscriber, vendor: LoopbackVendor
) -> None:
    vendor.answers(drips(b" ", every=0.02, times=1000))
    call = asyncio.ensure_future(whisper.transcribe(SOUND))
    await vendor.until(lambda: vendor.busy == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await vendor.until(lambda: vendor.busy == 0 and vendor.open_connections == 0)
    assert vendor.requests[0].abandoned


async def test_a_connection_is_used_again(whisper: WhisperApiTranscriber, vendor: LoopbackVendor) -> None:
    for _ in range(3):
        vendor.answers(answers({"text": "ok"}))
        await whisper.transcribe(SOUND)
    assert vendor.connections_ever == 1


async def test_what_openai_finds_in_the_environment_is_not_mixed_in(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, TELLTALE)
    vendor.answers(answers({"text": "ok"}))
    whisper = WhisperApiTranscriber(calling(vendor.base_url, ""), ROUTE, silence=1)
    await whisper.transcribe(SOUND)
    await whisper.aclose()
    assert TELLTALE not in str(vendor.requests[0].headers)


async def test_words_and_sound_are_not_logged(
    whisper: WhisperApiTranscriber, vendor: LoopbackVendor, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(call: Call) -> None:
        await fails(400, {"error": {"message": "我的名字叫做王小明 " + str(call.request.body[:200])}})(call)

    words: Any = "我的名字叫做王小明"
    RUN.keep_private(words)
    vendor.script = echo
    with pytest.raises(AudioUnsupported) as caught:
        await whisper.transcribe(SOUND, Hints(prompt=words))
    assert words not in caplog.text + repr(caught.value)
