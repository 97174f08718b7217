"""Transcribers around transcribers: one that remembers, one that asks in parts."""

import asyncio

import pytest

from chatassist.adapters.asr.remembering import RememberingTranscriber
from chatassist.adapters.asr.scripted import ScriptedTranscriber
from chatassist.adapters.asr.splitting import SplittingTranscriber
from chatassist.domain.audio import SAMPLE_RATE, Sound, Transcript
from chatassist.domain.errors import AsrUnavailable
from chatassist.domain.ports.asr import Hints, Transcriber
from tests.unit.worlds import until

ONE, OTHER = Sound(samples=b"one "), Sound(samples=b"other ")
PAUSE = bytes(SAMPLE_RATE)  # half a second


async def text(transcriber: Transcriber, sound: Sound = ONE, hints: Hints | None = None) -> str:
    return (await transcriber.transcribe(sound, hints or Hints())).text


# --- Remembering ----------------------------------------------------------------------------------------------------


async def test_the_same_sound_is_asked_about_once() -> None:
    engine = ScriptedTranscriber("first", "second")
    remembering = RememberingTranscriber(engine)
    assert [await text(remembering) for _ in range(3)] == ["first"] * 3
    assert await text(remembering, Sound(samples=ONE.samples)) == "first", "the samples count, not the object"
    assert len(engine.heard) == 1


@pytest.mark.parametrize(
    ("sound", "hints"),
    [(OTHER, Hints()), (ONE, Hints(language="zh")), (ONE, Hints(prompt="zh")), (ONE, Hints(prompt="\ud800"))],
)
async def test_another_sound_or_another_hint_is_another_question(sound: Sound, hints: Hints) -> None:
    remembering = RememberingTranscriber(ScriptedTranscriber("first", "second"))
    assert [await text(remembering), await text(remembering, sound, hints)] == ["first", "second"]


async def test_who_asks_while_it_is_asked_waits_with_him() -> None:
    finish = asyncio.Event()
    engine = ScriptedTranscriber(finish, "first", "second")
    remembering = RememberingTranscriber(engine)
    asking = [asyncio.create_task(text(remembering)) for _ in range(3)]
    await until(lambda: engine.heard)
    finish.set()
    assert await asyncio.gather(*asking) == ["first"] * 3
    assert len(engine.heard) == 1


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    finish = asyncio.Event()
    engine = ScriptedTranscriber(finish, "first")
    remembering = RememberingTranscriber(engine)
    first, second = (asyncio.create_task(text(remembering)) for _ in range(2))
    await until(lambda: engine.heard)
    first.cancel()
    await asyncio.wait({first})
    finish.set()
    assert await second == "first"


async def test_when_all_give_up_the_engine_is_let_go_and_the_next_asks_anew() -> None:
    engine = ScriptedTranscriber(asyncio.Event(), "second")
    remembering = RememberingTranscriber(engine)
    asking = [asyncio.create_task(text(remembering)) for _ in range(2)]
    await until(lambda: engine.heard)
    for each in asking:
        each.cancel()
    following = asyncio.create_task(text(remembering))  # before those who left are through with it
    await asyncio.wait(asking)
    assert await following == "second"
    assert all(each.cancelled() for each in asking)


async def test_a_failure_is_told_to_all_who_wait_and_not_remembered() -> None:
    engine = ScriptedTranscriber(AsrUnavailable("away"), "second")
    remembering = RememberingTranscriber(engine)
    told = await asyncio.gather(text(remembering), text(remembering), return_exceptions=True)
    assert [type(each) for each in told] == [AsrUnavailable] * 2
    assert await text(remembering) == "second"


async def test_it_forgets_after_its_time_and_the_oldest_when_there_are_many() -> None:
    at_once = RememberingTranscriber(ScriptedTranscriber("first", "second"), seconds=0)
    assert await text(at_once) == "first"
    await until(lambda: not at_once._calls)
    assert await text(at_once) == "second"

    few = RememberingTranscriber(ScriptedTranscriber(*"abcd"), texts=2)
    for samples in (b"a ", b"b ", b"c "):
        await text(few, Sound(samples=samples))
    assert len(few._calls) == 2
    assert await text(few, Sound(samples=b"b ")) == "b"
    assert await text(few, Sound(samples=b"a ")) == "d"


# --- In parts -------------------------------------------------------------------------------------------------------


async def test_what_is_short_enough_is_asked_about_whole() -> None:
    engine = ScriptedTranscriber(Transcript(text="ok", language="en"))
    sound = Sound(samples=PAUSE * 2)
    assert await SplittingTranscriber(engine, most=1).transcribe(sound) == Transcript(text="ok", language="en")
    assert [heard for heard, _ in engine.heard] == [sound]


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        (("今天天气", "很好。", "是吗？"), "今天天气很好。是吗？"),
        (("It is", "fine", "today."), "It is fine today."),
        (("我用", "Python", "写"), "我用Python写"),
        (("", "only here", ""), "only here"),
        (("", "", ""), ""),
    ],
)
async def test_parts_are_put_together_as_their_language_is_written(said: tuple[str, ...], whole: str) -> None:
    engine = ScriptedTranscriber(*(Transcript(text=each, language="zh" if each else None) for each in said))
    heard = await SplittingTranscriber(engine, most=1).transcribe(Sound(samples=PAUSE * 5), Hints(prompt="x"))
    assert heard == Transcript(text=whole, language="zh" if whole else None)
    assert b"".join(sound.samples for sound, _ in engine.heard) == PAUSE * 5
    assert all(sound.seconds <= 1 and hints.prompt == "x" for sound, hints in engine.heard)


async def test_a_part_that_fails_fails_the_whole() -> None:
    engine = ScriptedTranscriber("ok", AsrUnavailable("away"), "ok")
    with pytest.raises(AsrUnavailable):
        await text(SplittingTranscriber(engine, most=1), Sound(samples=PAUSE * 5))
