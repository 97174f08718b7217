"""The speech service: what is refused before anything is spent, one deadline over all, nothing heard is an error."""

import asyncio
from typing import Any

import pytest

from chatassist.adapters.asr.none import NoListener, NoTranscriber
from chatassist.adapters.asr.scripted import ScriptedListener, ScriptedTranscriber, Step
from chatassist.adapters.limits.memory import MemoryLimiter
from chatassist.adapters.sniff import recognise
from chatassist.domain.audio import Transcript
from chatassist.domain.errors import (
    AsrBusy,
    AsrNotConfigured,
    AsrTimeout,
    AsrUnavailable,
    AudioCorrupt,
    AudioEmpty,
    AudioNoSpeech,
    AudioTooLarge,
    AudioTooLong,
    AudioTooShort,
    AudioUnsupported,
    ChatAssistError,
    ContentInvalid,
    ShuttingDown,
    TooManyTranscriptions,
)
from chatassist.domain.ports.asr import Hints
from chatassist.domain.ports.limits import Rule
from chatassist.domain.services.speech import SpeechRules, SpeechService
from chatassist.domain.usage import Used
from tests.builders import a_user
from tests.fixtures.logs import RUN
from tests.unit.worlds import until

FLAC = b"fLaC" + b"sound"
ANNA, BERT = a_user(), a_user()


class Studio:
    """A speech service whose engine follows a script."""

    def __init__(
        self, *steps: Step, per_minute: int = 0, listener: ScriptedListener | None = None, **rules: Any
    ) -> None:
        self.engine = ScriptedTranscriber(*steps)
        limiter = MemoryLimiter({Rule.SPEECH: per_minute})
        self.counted: list[tuple[str, Used]] = []
        self.service = SpeechService(
            self.engine,
            listener or ScriptedListener(),
            recognise,
            limiter=limiter,
            count=self._count,
            rules=SpeechRules(**rules),
        )

    async def _count(self, openid: str, used: Used) -> None:
        self.counted.append((openid, used))

    async def hears(self, data: bytes = FLAC, **hints: str) -> Transcript:
        return await self.service.transcribe(ANNA, data, Hints(**hints))


async def test_what_was_said_comes_back_trimmed_with_its_language_and_the_seconds_of_its_sound() -> None:
    studio = Studio(Transcript(text=" 今天天气怎么样？\n", language="zh", duration=77.0))

    said = await studio.hears(b"fLaC" + bytes(79_996))

    assert said == Transcript(text="今天天气怎么样？", language="zh", duration=2.5)
    assert studio.counted == [(ANNA.openid, Used(audio_ms=2500))]


async def test_the_engine_gets_the_sound_and_the_hints() -> None:
    studio = Studio("ok")

    await studio.hears(language="zh", prompt="小爱")

    ((sound, hints),) = studio.engine.heard
    assert (sound.samples, hints) == (FLAC, Hints(language="zh", prompt="小爱"))


@pytest.mark.parametrize("error", [AudioCorrupt, AudioTooShort, AudioTooLong, AudioNoSpeech, AudioUnsupported])
async def test_a_recording_in_which_nothing_is_heard_reaches_no_engine(error: type[ChatAssistError]) -> None:
    studio = Studio("ok", listener=ScriptedListener(error()))

    with pytest.raises(error):
        await studio.hears()

    assert (studio.engine.heard, studio.counted) == ([], [])


async def test_no_more_than_so_many_are_under_way_and_who_gives_up_makes_room() -> None:
    finish = asyncio.Event()
    studio = Studio("one", "two", listener=ScriptedListener(asyncio.Event(), finish), at_once=2, per_minute=3)
    given_up, running = (asyncio.create_task(studio.hears()) for _ in range(2))
    await asyncio.sleep(0)

    with pytest.raises(AsrBusy) as caught:
        await studio.hears()
    given_up.cancel()
    await asyncio.wait({given_up})
    finish.set()

    assert caught.value.retry_after
    assert (await studio.hears()).text, "and the refusal cost nothing"
    assert (await running).text


async def test_what_was_not_understood_does_not_count() -> None:
    studio = Studio(Transcript(text=" ", duration=2.5), AsrUnavailable("away"))

    for _ in range(2):
        with pytest.raises((AudioNoSpeech, AsrUnavailable)):
            await studio.hears()

    assert studio.counted == []


@pytest.mark.parametrize("nothing", ["", "  \n\u3000"])
async def test_nothing_heard_is_an_error_and_not_an_empty_success(nothing: str) -> None:
    with pytest.raises(AudioNoSpeech):
        await Studio(nothing).hears()


@pytest.mark.parametrize(
    ("data", "hints", "error"),
    [
        (b"", {}, AudioEmpty),
        (b"fLaC" + b"x" * 97, {}, AudioTooLarge),
        (b"\x02#!SILK_V3", {}, AudioUnsupported),
        (FLAC, {"prompt": "a\x00b"}, ContentInvalid),
        (FLAC, {"prompt": "\ud800"}, ContentInvalid),
    ],
)
async def test_what_can_never_succeed_costs_neither_limit_nor_engine(
    data: bytes, hints: dict[str, str], error: type[ChatAssistError]
) -> None:
    studio = Studio("ok", per_minute=1, max_bytes=100)

    with pytest.raises(error):
        await studio.hears(data, **hints)

    assert studio.engine.heard == []
    assert (await studio.hears()).text == "ok"


async def test_the_largest_recording_allowed_is_taken() -> None:
    assert (await Studio("ok", max_bytes=100).hears(b"fLaC" + b"x" * 96)).text == "ok"


async def test_recordings_are_limited_per_user() -> None:
    studio = Studio("one", "two", "three", per_minute=2)
    await studio.hears()
    await studio.hears()

    with pytest.raises(TooManyTranscriptions) as caught:
        await studio.hears()

    assert 0 < (caught.value.retry_after or 0) <= 60
    assert (await studio.service.transcribe(BERT, FLAC)).text == "three"


@pytest.mark.parametrize(
    "studio",
    [
        Studio(asyncio.Event(), deadline=0.01),
        Studio("ok", listener=ScriptedListener(asyncio.Event()), deadline=0.01),
    ],
    ids=["engine", "listener"],
)
async def test_what_takes_too_long_is_given_up(studio: Studio) -> None:
    with pytest.raises(AsrTimeout):
        await studio.hears()


@pytest.mark.parametrize("error", [AsrUnavailable(), AsrBusy(), AudioUnsupported(), AsrTimeout()])
async def test_what_the_engine_says_is_passed_on(error: ChatAssistError) -> None:
    with pytest.raises(type(error)):
        await Studio(error).hears()


async def test_without_an_engine_it_says_so() -> None:
    async def never(_: str, __: Used) -> None:
        raise AssertionError

    service = SpeechService(NoTranscriber(), NoListener(), recognise, limiter=MemoryLimiter({}), count=never)

    with pytest.raises(AsrNotConfigured):
        await service.transcribe(ANNA, FLAC)


async def test_a_drain_waits_for_what_runs_and_takes_nothing_new() -> None:
    finish = asyncio.Event()
    studio = Studio(finish, "in time")
    running = asyncio.create_task(studio.hears())
    await until(lambda: studio.engine.heard)

    draining = asyncio.create_task(studio.service.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        await studio.hears()
    finish.set()

    assert (await running).text == "in time"
    await draining


async def test_a_drain_ends_what_does_not_finish() -> None:
    studio = Studio(asyncio.Event())
    running = asyncio.create_task(studio.hears())
    await until(lambda: studio.engine.heard)

    await studio.service.drain(0)

    with pytest.raises(ShuttingDown):
        await running


async def test_a_drain_of_nothing_is_over_at_once() -> None:
    await Studio().service.drain(0)


async def test_neither_words_nor_sound_are_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    words, names, sound = "我的密码是一二三四", "张三丰的电话号码", b"fLaC-telltale-bytes"
    RUN.keep_private(words, names, "telltale-bytes")
    caplog.set_level("DEBUG")

    await Studio(words).hears(sound, prompt=names)
    with pytest.raises(AsrUnavailable):
        await Studio(AsrUnavailable("the connection failed")).hears(sound, prompt=names)

    shown = caplog.text + repr([vars(record) for record in caplog.records])
    shown += repr(recognise(sound)) + repr(Hints(prompt=names)) + repr(Transcript(text=words))
    assert "transcribed" in shown
    assert "the connection failed" in shown, "the operator learns why"
    assert not any(private in shown for private in (words, names, "telltale"))
