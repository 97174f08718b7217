"""What is odd about single vendors' speech to text: hints and lengths they take, marks in texts, their refusals."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatassist.adapters.asr.whisper_api import WhisperApiTranscriber
from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.vendor import TranscriptionRoute, TranscriptionStyle
from chatassist.domain.audio import SAMPLE_RATE, Sound, Transcript
from chatassist.domain.errors import AsrUnavailable, AudioUnsupported, ChatAssistError
from chatassist.domain.ports.asr import Hints
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, sends
from tests.integration.calling import calling

KEY = "sk-loopback-key-1234"
TELLTALE = "telltale-of-the-vendor"
HINTS = Hints(language="zh", prompt="张三、李四")
SOUND = Sound(samples=bytes(range(256)) * 400)
BY_FORM = [
    row.name for row in CATALOGUE.values() if row.transcription and row.transcription.style is TranscriptionStyle.OPENAI
]


def route_of(kind: str) -> TranscriptionRoute:
    route = CATALOGUE[kind].transcription
    assert route is not None
    return route


@asynccontextmanager
async def transcriber(vendor: LoopbackVendor, kind: str) -> AsyncIterator[WhisperApiTranscriber]:
    made = WhisperApiTranscriber(calling(vendor.base_url, KEY, kind), route_of(kind), silence=1)
    yield made
    await made.aclose()


async def hear(vendor: LoopbackVendor, kind: str, sound: Sound, hints: Hints = HINTS) -> Transcript:
    async with transcriber(vendor, kind) as made:
        return await made.transcribe(sound, hints)


def says(text: str) -> Any:
    return sends(json.dumps({"text": text}).encode(), content_type="application/json")


def fields(vendor: LoopbackVendor) -> set[str]:
    body: bytes = vendor.requests[-1].body
    return {part.partition(b'"')[0].decode() for part in body.split(b'form-data; name="')[1:]}


# --- What they are sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BY_FORM)
async def test_hints_go_to_those_who_take_them(vendor: LoopbackVendor, kind: str) -> None:
    vendor.answers(says("好的"))
    heard = await hear(vendor, kind, SOUND)
    taken = route_of(kind).hints
    assert fields(vendor) == ({"file", "model", "language", "prompt"} if taken else {"file", "model"})
    assert heard == Transcript(text="好的", language="zh" if taken else None)


def test_siliconflow_and_zhipu_take_none() -> None:
    assert {kind for kind in BY_FORM if not route_of(kind).hints} == {"siliconflow", "zhipu"}


def test_zhipu_and_dashscope_hear_so_many_seconds_at_a_time() -> None:
    capped = {row.name: row.transcription.max_seconds for row in CATALOGUE.values() if row.transcription}
    assert {name: seconds for name, seconds in capped.items() if seconds} == {"zhipu": 30, "qwen": 180}
    assert len(base64.b64encode(bytes(44 + 2 * SAMPLE_RATE * 180))) < 10_000_000, "which is as much as it takes"


async def test_azure_is_shown_the_key_and_told_the_version_in_its_own_way(vendor: LoopbackVendor) -> None:
    address = vendor.base_url.removesuffix("/v1") + "/openai/deployments/ears"
    access = calling(address, KEY, "azure")
    whisper = WhisperApiTranscriber(access, TranscriptionRoute(model="ears"), silence=1)
    vendor.answers(says("ok"))
    await whisper.transcribe(SOUND)
    await whisper.aclose()
    path, _, query = vendor.requests[0].path.partition("?")
    assert path == "/openai/deployments/ears/audio/transcriptions"
    assert query.startswith("api-version=")
    assert vendor.requests[0].headers["api-key"] == KEY
    assert "authorization" not in vendor.requests[0].headers


async def test_a_server_without_a_key_is_shown_none(vendor: LoopbackVendor) -> None:
    whisper = WhisperApiTranscriber(calling(vendor.base_url, kind="localai"), route_of("localai"), silence=1)
    vendor.answers(says("ok"))
    await whisper.transcribe(SOUND)
    await whisper.aclose()
    assert "authorization" not in vendor.requests[0].headers


# --- Marks of SenseVoice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "text", "language"),
    [
        ("<|zh|><|NEUTRAL|><|Speech|><|withitn|>你好，世界。", "你好，世界。", "zh"),
        ("<|yue|><|HAPPY|><|Laughter|><|woitn|> 早晨 ", "早晨", "yue"),
        ("<|en|><|EMO_UNKNOWN|><|Speech|>hello<|en|><|SAD|><|Cry|> again", "hello again", "en"),
        ("你好。😊", "你好。", None),
        ("🎼😡别闹了，😭好吗？👏", "别闹了，好吗？", None),
        ("❓", "", None),
        ("🎼", "", None),
        ("<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|>", "", None),
        ("😀\ufe0f", "", None),
        ("三乘以四<等于>十二，100℃ |", "三乘以四<等于>十二，100℃ |", None),
        ("<html>", "<html>", None),
    ],
)
async def test_tags_and_pictures_are_no_words(
    vendor: LoopbackVendor, said: str, text: str, language: str | None
) -> None:
    vendor.answers(says(said))
    assert await hear(vendor, "siliconflow", SOUND) == Transcript(text=text, language=language)


async def test_tags_in_a_plain_text_are_not_taken_for_html(vendor: LoopbackVendor) -> None:
    vendor.answers(sends("<|zh|><|NEUTRAL|>你好".encode(), content_type="text/plain"))
    assert (await hear(vendor, "siliconflow", SOUND)).text == "你好"


async def test_pictures_of_other_models_stay(vendor: LoopbackVendor) -> None:
    """They may stand for a word that was said."""
    vendor.answers(says("👍好"))
    assert (await hear(vendor, "openai", SOUND)).text == "👍好"


# --- Their refusals -------------------------------------------------------------------------------------------------


def plainly(text: str) -> Any:
    """As SiliconFlow refuses: a string, as JSON."""
    return json.dumps(f"{text} {TELLTALE}")


def numbered(status: int, code: int, **more: Any) -> Any:
    return fails(status, {"code": code, "message": TELLTALE, "data": None}, **more)


def zhipu(status: int, code: str) -> Any:
    return fails(status, {"error": {"code": code, "message": TELLTALE}})


@pytest.mark.parametrize(
    ("kind", "behaviour", "error", "retry_after"),
    [
        ("siliconflow", numbered(400, 20012), AsrUnavailable, None),  # no such model
        ("siliconflow", numbered(400, 20015), AudioUnsupported, None),
        ("siliconflow", fails(401, plainly("Invalid token")), AsrUnavailable, None),
        ("siliconflow", numbered(403, 30001), AsrUnavailable, None),
        ("siliconflow", fails(403, plainly("Forbidden")), AsrUnavailable, None),
        ("siliconflow", fails(404, plainly("404 page not found")), AsrUnavailable, None),
        ("siliconflow", fails(429, {"message": TELLTALE, "data": TELLTALE}), AsrUnavailable, 10),
        ("siliconflow", numbered(503, 50505), AsrUnavailable, 10),
        ("siliconflow", numbered(200, 50505), AsrUnavailable, 10),
        ("zhipu", zhipu(401, "1002"), AsrUnavailable, None),
        ("zhipu", zhipu(429, "1113"), AsrUnavailable, None),  # unpaid, whatever the status says
        ("zhipu", zhipu(400, "1211"), AsrUnavailable, None),
        ("zhipu", zhipu(400, "1214"), AudioUnsupported, None),
        ("zhipu", zhipu(400, "1301"), AsrUnavailable, None),
        ("zhipu", zhipu(429, "1302"), AsrUnavailable, 10),
        ("zhipu", zhipu(429, "1312"), AsrUnavailable, 10),
        ("zhipu", zhipu(200, "1302"), AsrUnavailable, 10),
        ("groq", fails(498, {"error": {"code": "capacity_exceeded", "message": TELLTALE}}), AsrUnavailable, 10),
        ("openai", fails(400, {"error": {"code": "audio_too_short", "message": TELLTALE}}), AudioUnsupported, None),
    ],
)
async def test_a_refusal_is_told_for_what_it_means(
    vendor: LoopbackVendor, kind: str, behaviour: Any, error: type[ChatAssistError], retry_after: float | None
) -> None:
    vendor.script = behaviour
    with pytest.raises(error) as caught:
        await hear(vendor, kind, SOUND, Hints())
    assert type(caught.value) is error
    assert caught.value.retry_after == retry_after
    assert TELLTALE not in str(caught.value)
    assert len(vendor.requests) == 1


async def test_a_vendor_that_takes_no_hints_is_not_asked_again_without_them(vendor: LoopbackVendor) -> None:
    vendor.script = numbered(400, 20015)
    with pytest.raises(AudioUnsupported):
        await hear(vendor, "siliconflow", SOUND, HINTS)
    assert len(vendor.requests) == 1
