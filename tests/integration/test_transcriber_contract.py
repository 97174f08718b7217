"""What every transcriber promises, whoever listens."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chatassist.adapters.asr.chat_transcriber import ChatTranscriber
from chatassist.adapters.asr.scripted import ScriptedTranscriber
from chatassist.adapters.asr.whisper_api import WhisperApiTranscriber
from chatassist.adapters.asr.whisper_local import LocalWhisperTranscriber
from chatassist.adapters.vendor import TranscriptionRoute
from chatassist.domain.errors import AsrUnavailable
from chatassist.domain.model import is_clean
from chatassist.domain.ports.asr import Hints, Transcriber
from tests.fixtures.logs import RUN
from tests.fixtures.speech import silence, sound_of, spoken
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, sends
from tests.integration.calling import calling

KEY = "sk-loopback-key-1234"
ROUTE = TranscriptionRoute(model="whisper-1")


@dataclass
class Booth:
    """A transcriber, and how a test makes whatever stands behind it behave."""

    transcriber: Transcriber
    says: Callable[[str], None]
    hangs: Callable[[], None]
    reached: Callable[[], Awaitable[None]]
    breaks: Callable[[], None]


@pytest.fixture(params=["scripted", "whisper_api", "chat", "whisper_local"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def booth(kind: str, vendor: LoopbackVendor, tiny_whisper: Path) -> AsyncIterator[Booth]:
    if kind == "scripted":
        scripted = ScriptedTranscriber()
        yield Booth(
            scripted,
            says=scripted.plays,
            hangs=lambda: scripted.plays(asyncio.Event()),
            reached=lambda: asyncio.sleep(0),
            breaks=lambda: scripted.plays(AsrUnavailable()),
        )
    elif kind in ("whisper_api", "chat"):
        access = calling(vendor.base_url, KEY)
        remote: WhisperApiTranscriber | ChatTranscriber = (
            WhisperApiTranscriber(access, ROUTE, silence=5)
            if kind == "whisper_api"
            else ChatTranscriber(access, ROUTE, silence=5)
        )
        yield Booth(
            remote,
            says=lambda text: vendor.answers(
                sends(json.dumps(_answer(kind, text)).encode(), content_type="application/json")
            ),
            hangs=lambda: vendor.answers(hangs(head=False)),
            reached=lambda: vendor.until(lambda: vendor.busy == 1),
            breaks=lambda: vendor.answers(fails(503)),
        )
        await remote.aclose()
    else:
        local = LocalWhisperTranscriber(model=str(tiny_whisper))
        yield Booth(
            local,
            says=lambda _: None,
            hangs=lambda: None,
            reached=lambda: asyncio.sleep(0),
            breaks=lambda: _break(local),
        )
        await local.aclose()


def _answer(kind: str, text: str) -> object:
    message = {"role": "assistant", "content": text}
    return {"text": text} if kind == "whisper_api" else {"choices": [{"finish_reason": "stop", "message": message}]}


def _break(local: LocalWhisperTranscriber) -> None:
    class Broken:
        supported_languages = ("zh",)

        def transcribe(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError(f"CUDA failed with {KEY}")

    local._model = Broken()


async def test_speech_gives_text_that_is_clean_and_stripped(booth: Booth) -> None:
    booth.says(" hello\x00 world\ud83d ")
    heard = await booth.transcriber.transcribe(sound_of(spoken()))
    RUN.keep_private(heard.text)
    assert heard.text
    assert heard.text == heard.text.strip()
    assert is_clean(heard.text)


async def test_a_silent_recording_gives_an_empty_text(booth: Booth) -> None:
    booth.says("  ")
    assert (await booth.transcriber.transcribe(sound_of(silence()))).text == ""


@pytest.mark.parametrize(
    "hints", [Hints(language="zh", prompt="以下是普通话"), Hints(language="qq"), Hints(prompt="x")]
)
async def test_hints_never_harm(booth: Booth, hints: Hints) -> None:
    booth.says("heard")
    heard = await booth.transcriber.transcribe(sound_of(spoken()), hints)
    assert heard.text
    assert heard.language == "zh" or hints.language != "zh"


async def test_a_caller_who_gives_up_is_let_go_and_the_next_is_served(booth: Booth) -> None:
    booth.hangs()
    call = asyncio.ensure_future(booth.transcriber.transcribe(sound_of(spoken())))
    await booth.reached()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    booth.says("the next")
    heard = await booth.transcriber.transcribe(sound_of(spoken()))
    assert heard.text
    assert heard.text == "the next" or isinstance(booth.transcriber, LocalWhisperTranscriber)


async def test_many_at_once_are_all_served(booth: Booth) -> None:
    for _ in range(4):
        booth.says("one of many")
    sound = sound_of(spoken())
    heard = await asyncio.gather(*(booth.transcriber.transcribe(sound) for _ in range(4)))
    assert all(each.text for each in heard)


async def test_an_engine_that_fails_is_told_in_our_words_alone(booth: Booth) -> None:
    booth.breaks()
    with pytest.raises(AsrUnavailable) as caught:
        await booth.transcriber.transcribe(sound_of(spoken()))
    assert KEY not in str(caught.value)
