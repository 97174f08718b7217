"""What every synthesiser promises, whoever speaks."""

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from chatassist.adapters.sniff import recognise
from chatassist.adapters.tts.scripted import ScriptedSynthesiser
from chatassist.adapters.tts.speech_api import SpeechApiSynthesiser
from chatassist.adapters.vendor import SpeechRoute
from chatassist.domain.audio import AudioKind
from chatassist.domain.diagnosis import Verdict, look_at_synthesiser
from chatassist.domain.errors import TtsTimeout, TtsUnavailable
from chatassist.domain.ports.tts import Script, Synthesiser
from tests.fixtures.logs import RUN
from tests.fixtures.speech import decoded, recording
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, sends
from tests.integration.calling import calling

KEY = "sk-loopback-key-1234"
WORDS = "这是要朗读的一句话，谁也不该在日志里看到它。"
SENTENCE = Script(text=WORDS)


@dataclass
class Stage:
    """A synthesiser, and how a test makes whatever stands behind it behave."""

    synthesiser: Synthesiser
    speaks: Callable[[], None]
    hangs: Callable[[], None]
    reached: Callable[[], Awaitable[None]]
    breaks: Callable[[], None]
    calls: Callable[[], int]


@pytest.fixture(params=["scripted", "speech_api"])
async def stage(request: pytest.FixtureRequest, vendor: LoopbackVendor) -> AsyncIterator[Stage]:
    RUN.keep_private(WORDS, KEY)
    if request.param == "scripted":
        scripted = ScriptedSynthesiser(max_chars=100)
        yield Stage(
            scripted,
            speaks=lambda: None,
            hangs=lambda: scripted.plays(asyncio.Event()),
            reached=lambda: asyncio.sleep(0),
            breaks=lambda: scripted.plays(TtsUnavailable()),
            calls=lambda: len(scripted.scripts),
        )
        return
    route = SpeechRoute(model="tts-1", voice="alloy", max_chars=100)
    remote = SpeechApiSynthesiser(calling(vendor.base_url, KEY), route, silence=5)
    yield Stage(
        remote,
        speaks=lambda: vendor.answers(sends(recording(AudioKind.MP3), content_type="audio/mpeg")),
        hangs=lambda: vendor.answers(hangs(head=False)),
        reached=lambda: vendor.until(lambda: vendor.busy == 1),
        breaks=lambda: vendor.answers(fails(503)),
        calls=lambda: len(vendor.requests),
    )
    await remote.aclose()


async def test_words_become_a_recording_that_plays_and_is_what_it_says(stage: Stage) -> None:
    stage.speaks()
    audio = await stage.synthesiser.synthesise(SENTENCE)
    assert audio.kind is recognise(audio.data).kind
    assert len(decoded(audio.data)) > 1600, "a tenth of a second at least"


@pytest.mark.parametrize("speed", [0.5, 1.0, 1.25, 2.0])
async def test_every_speed_of_the_contract_is_taken(stage: Stage, speed: float) -> None:
    stage.speaks()
    assert (await stage.synthesiser.synthesise(Script(text=WORDS, voice="nova", speed=speed))).data


@pytest.mark.parametrize(
    "script",
    [
        Script(text=""),
        Script(text=" \n"),
        Script(text="字" * 101),
        Script(text="好", speed=0.4),
        Script(text="好", speed=2.1),
        Script(text="好", speed=float("nan")),
    ],
    ids=["empty", "blank", "long", "slow", "fast", "nan"],
)
async def test_a_script_that_nobody_can_say_costs_no_call(stage: Stage, script: Script) -> None:
    assert stage.synthesiser.max_chars == 100
    with pytest.raises(ValueError, match=r"nothing to say|100 characters|speed"):
        await stage.synthesiser.synthesise(script)
    assert stage.calls() == 0


async def test_as_many_characters_as_allowed_are_said(stage: Stage) -> None:
    """Characters, not bytes and not halves of characters."""
    stage.speaks()
    assert (await stage.synthesiser.synthesise(Script(text="😀" * 100))).data
    stage.speaks()
    assert (await stage.synthesiser.synthesise(Script(text="half \ud83d of one"))).data


async def test_a_caller_who_gives_up_is_let_go_and_the_next_is_served(stage: Stage) -> None:
    stage.hangs()
    call = asyncio.ensure_future(stage.synthesiser.synthesise(SENTENCE))
    await stage.reached()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    stage.speaks()
    assert (await stage.synthesiser.synthesise(SENTENCE)).data


async def test_many_at_once_are_all_served(stage: Stage) -> None:
    for _ in range(4):
        stage.speaks()
    spoken = await asyncio.gather(*(stage.synthesiser.synthesise(SENTENCE) for _ in range(4)))
    assert all(audio.data for audio in spoken)


async def test_an_engine_that_fails_is_told_in_our_words_alone(stage: Stage) -> None:
    stage.breaks()
    with pytest.raises(TtsUnavailable) as caught:
        await stage.synthesiser.synthesise(SENTENCE)
    assert caught.value.retry_after == 10
    assert KEY not in str(caught.value)
    assert WORDS not in str(caught.value)


def test_a_script_shows_no_words() -> None:
    assert WORDS not in repr(SENTENCE)


async def test_an_operator_is_told_what_two_characters_cost(stage: Stage) -> None:
    stage.speaks()
    [(verdict, sentence)] = [found async for found in look_at_synthesiser(stage.synthesiser)]
    assert verdict is Verdict.OK
    assert "were spoken in 0." in sentence
    stage.breaks()
    with pytest.raises(TtsUnavailable):
        [found async for found in look_at_synthesiser(stage.synthesiser)]


# --- The one that needs no engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        (Script(text="好"), 0.2),
        (Script(text="十个字就念两秒钟左右"), 2.0),
        (Script(text="十个字就念两秒钟左右", speed=2.0), 1.0),
        (Script(text="十个字就念两秒钟左右", speed=0.5), 4.0),
        (Script(text="很长" * 1000), 30.0),
    ],
)
async def test_the_tone_lasts_as_long_as_somebody_would_speak(script: Script, seconds: float) -> None:
    audio = await ScriptedSynthesiser().synthesise(script)
    with wave.open(io.BytesIO(audio.data)) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(seconds, abs=0.01)
    loudest = abs(decoded(audio.data)).max()
    assert 0.01 < loudest < 0.2, "heard, and nobody is startled"


async def test_a_scripted_one_does_as_it_is_told() -> None:
    audio = recognise(recording(AudioKind.MP3))
    scripted = ScriptedSynthesiser(audio, TtsTimeout())
    assert await scripted.synthesise(SENTENCE) is audio
    with pytest.raises(TtsTimeout):
        await scripted.synthesise(SENTENCE)
    assert scripted.scripts == [SENTENCE] * 2
