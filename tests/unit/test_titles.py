"""Titles by a model: made beside the first reply, which they never delay, and never instead of its user's own."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.domain.errors import ContextTooLong, LlmMisconfigured, LlmOverloaded, LlmTimeout, LlmUnavailable
from chatassist.domain.model import Preferences, Prompt, Session, TitleSource, User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.replies import Delta, Ended, Event, Numbered, Replace, Titled
from chatassist.domain.replies.titles import ANSWER_CHARS, TitleRules
from chatassist.domain.turns import End, FinishReason, Status, Turn
from tests.builders import NOW, an_end
from tests.unit.clients import Client
from tests.unit.worlds import Fault, World, until

KEY = "key-1"
LONG = "答" * 200
TITLE = "A title by the model"
BLOCKED = Chunk(finish_reason=FinishReason.BLOCKED)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(title_script=plays(TITLE)) as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


async def session_of(world: World, turn: Turn) -> Session:
    message = turn.message
    return await world.store.inner.read(lambda tx: tx.sessions.get(message.session_id, message.user_id))


async def called(world: World, turn: Turn) -> tuple[str, TitleSource]:
    """What the session is called, once nobody works at that any more, and who called it so."""
    await until(lambda: not world.titler._tasks)
    session = await session_of(world, turn)
    return session.title, session.title_source


async def rename(world: World, turn: Turn) -> None:
    session = await session_of(world, turn)
    assert isinstance(world.store.inner, MemoryStore)
    world.store.inner._tables.sessions[session.id] = replace(session, title="mine", title_source=TitleSource.USER)


def ended(turn: Turn) -> Ended:
    assert turn.reply.end
    return Ended(turn.reply.end)


async def numbered_events(world: World, turn: Turn) -> Sequence[Numbered]:
    return [numbered async for batch in world.replies.events(turn) for numbered in batch]


def texts(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


BY_MODEL = (TITLE, TitleSource.MODEL)
BY_QUESTION = ("a question", TitleSource.QUESTION)


# --- When a title is made, and who learns of it ---------------------------------------------------------------------


async def test_a_title_that_is_ready_in_time_is_an_event_between_the_others(world: World, anna: User) -> None:
    told = asyncio.Event()
    world.vendor.script = plays(LONG, told, "more")
    turn = (await world.send(anna)).turn
    titled = Titled(turn.message.session_id, TITLE)

    reading = asyncio.create_task(numbered_events(world, turn))
    await until(lambda: world.engine.last_number(turn.reply) == 2)
    assert await called(world, turn) == BY_MODEL, "it is stored before it is told"
    told.set()
    events = await reading

    last = events[-1].event
    assert isinstance(last, Ended)
    assert events == [
        Numbered(1, Delta(LONG)),
        Numbered(2, titled),
        Numbered(3, Delta("more")),
        Numbered(4, last),
    ]
    kept = await world.kept(turn)
    assert kept
    assert (kept.reply.seq, kept.reply.end, kept.reply.content) == (4, last.end, LONG + "more")


async def test_a_short_reply_is_titled_after_its_end_and_only_the_session_shows_it(world: World, anna: User) -> None:
    gate = asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    turn = await world.ask(anna)

    await until(lambda: world.title_vendor.speaking)
    gate.set()
    assert await called(world, turn) == BY_MODEL
    events = await world.events(turn)
    assert [type(event) for event in events] == [Delta, Ended]


@pytest.mark.parametrize(("said", "begun"), [(199, False), (200, True)])
async def test_a_title_is_begun_as_soon_as_there_are_200_characters(
    world: World, anna: User, said: int, begun: bool
) -> None:
    world.vendor.script = plays("x" * 100, "y" * (said - 100), asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.engine.last_number(turn.reply) >= 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bool(world.title_vendor.prompts) is begun


async def test_the_model_is_given_200_characters_of_each_side(world: World, anna: User) -> None:
    world.gate._rules = replace(world.gate._rules, content_chars=1_000)
    world.vendor.script = plays("答" * 190, "答" * 190)
    turn = await world.ask(anna, "问" * 300)
    assert await called(world, turn) == BY_MODEL
    [prompt] = world.title_vendor.prompts
    shown = prompt.utterances[-1].content
    assert (shown.count("问"), shown.count("答")) == (200, 200)


async def test_a_title_is_made_once(world: World, anna: User) -> None:
    world.vendor.script = plays(*[LONG] * 5)
    turn = await world.ask(anna)
    assert await called(world, turn) == BY_MODEL
    await world.ask(anna, session_id=turn.message.session_id)
    await world.messages.regenerate(anna, (await world.ask(anna, session_id=turn.message.session_id)).reply.id)
    assert await called(world, turn) == BY_MODEL
    assert len(world.title_vendor.prompts) == 1


@pytest.mark.parametrize("reply", ["short", LONG])
async def test_another_version_of_the_first_reply_gives_no_title(world: World, anna: User, reply: str) -> None:
    world.title_vendor.script = plays(LlmOverloaded())
    turn = await world.ask(anna)
    assert await called(world, turn) == BY_QUESTION
    world.title_vendor.script = plays(TITLE)
    world.vendor.script = plays(reply)
    await world.end_of((await world.messages.regenerate(anna, turn.reply.id)).turn)
    assert await called(world, turn) == BY_QUESTION
    assert len(world.title_vendor.prompts) == 1


async def test_nothing_of_an_unsaved_session_reaches_the_model(world: World, anna: User) -> None:
    told = asyncio.Event()
    world.vendor.script = plays(LONG, told)
    turn = (await world.send(replace(anna, preferences=Preferences(save_history=False)))).turn
    await until(lambda: world.engine.last_number(turn.reply) == 1)
    assert not world.titler._tasks
    told.set()
    await world.end_of(turn)
    assert not world.titler._tasks
    assert world.title_vendor.prompts == []


async def test_without_a_model_nobody_is_asked() -> None:
    async with World(script=plays(LONG)) as world:
        turn = await world.ask(await world.somebody())
        assert await called(world, turn) == BY_QUESTION
        assert world.title_vendor.prompts == []


# --- Never in the way of the reply ----------------------------------------------------------------------------------


async def test_a_title_that_takes_long_delays_nothing_and_is_kept_all_the_same(world: World, anna: User) -> None:
    gate = asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    world.vendor.script = plays(LONG)
    turn = await world.ask(anna)

    assert turn.reply.status is Status.COMPLETE
    assert (await session_of(world, turn)).title_source is TitleSource.QUESTION
    assert world.title_vendor.speaking
    gate.set()
    assert await called(world, turn) == BY_MODEL
    assert [type(event) for event in await world.events(turn)] == [Delta, Ended]


async def test_a_title_that_comes_while_the_end_is_being_stored_is_no_event(world: World, anna: User) -> None:
    gate = asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    world.vendor.script = plays(LONG)

    async def comes(_: str, __: Ended) -> None:
        gate.set()
        await until(lambda: not world.titler._tasks)

    world.feed.at_end = comes
    turn = (await world.send(anna)).turn
    events = await numbered_events(world, turn)
    assert [(each.seq, type(each.event)) for each in events] == [(1, Delta), (2, Ended)]
    assert await called(world, turn) == BY_MODEL


FAILURES: dict[str, list[Step]] = {
    "overloaded": [LlmOverloaded()],
    "unavailable amid": ["A ti", LlmUnavailable()],
    "misconfigured": [LlmMisconfigured()],
    "silent": [LlmTimeout()],
    "too long": [ContextTooLong()],
    "a defect": [RuntimeError("a defect")],
    "blocked": ["A title", BLOCKED],
    "nothing": [],
    "blanks": [" \n "],
    "mere thinking": [Chunk(thinking="I think"), Chunk(thinking="a title")],
    "thinking aloud without an end": ["<think>", "a title"],
    "an introduction": ["Here is your title:"],
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("reply", ["short", LONG], ids=["after the end", "amid"])
async def test_where_the_model_fails_the_first_words_stay_and_the_reply_is_as_ever(
    world: World, anna: User, answer: Sequence[Step], reply: str
) -> None:
    world.title_vendor.script = plays(*answer)
    told = asyncio.Event()
    world.vendor.script = plays(reply, told, "more")
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)
    await until(lambda: not world.titler._tasks)
    told.set()

    assert await world.events(turn) == [
        Delta(reply),
        Delta("more"),
        ended(await world.get(anna, turn.reply.id)),
    ]
    assert await called(world, turn) == BY_QUESTION
    assert (len(world.title_vendor.prompts), world.title_vendor.speaking) == (1, 0)


async def test_a_failure_is_one_line_in_the_log_without_a_word_of_anybody(
    world: World, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.title_vendor.script = plays("said by the model", LlmOverloaded("the vendor is busy"))
    turn = await world.ask(anna, "asked by somebody")
    await called(world, turn)
    [line] = [record for record in caplog.records if record.name.endswith("titles")]
    assert (line.levelname, line.message) == ("WARNING", "title failed")
    assert (line.__dict__["reason"], line.__dict__["reply_id"]) == ("llm_overloaded", turn.reply.id)
    assert not any(word in str(vars(record)) for record in caplog.records for word in ("by the model", "by somebody"))


async def test_a_title_has_a_deadline_of_its_own() -> None:
    rules = TitleRules(deadline=0.01)
    async with World(title_script=plays("A ti", asyncio.Event()), title_rules=rules) as world:
        turn = await world.ask(await world.somebody())
        assert await called(world, turn) == BY_QUESTION
        assert (len(world.title_vendor.prompts), world.title_vendor.speaking) == (1, 0)


async def test_a_model_that_never_stops_is_hung_up_on(world: World, anna: User) -> None:
    async def babble(_: Prompt) -> AsyncGenerator[Chunk, None]:
        yield Chunk(text="A title\n")
        while True:
            yield Chunk(text="x" * 100)

    world.title_vendor.script = babble
    turn = await world.ask(anna)
    assert await called(world, turn) == ("A title", TitleSource.MODEL)
    assert world.title_vendor.speaking == 0
    assert ANSWER_CHARS < 10_000


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LOST_BEFORE_COMMIT, Fault.DEFECT])
async def test_where_the_store_fails_the_reply_goes_on(world: World, anna: User, fault: Fault) -> None:
    gate, told = asyncio.Event(), asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    world.vendor.script = plays(LONG, told, "more")
    turn = (await world.send(anna)).turn
    await until(lambda: world.title_vendor.speaking)
    world.store.faults.append(fault)
    gate.set()
    assert await called(world, turn) == BY_QUESTION
    told.set()
    assert texts(await world.events(turn)) == LONG + "more"
    assert (await world.end_of(turn)).reply.status is Status.COMPLETE


async def test_so_many_are_made_at_once_and_no_more() -> None:
    gate = asyncio.Event()
    async with World(title_script=plays(gate, TITLE), title_rules=TitleRules(at_once=2)) as world:
        anna = await world.somebody()
        turns = [await world.ask(anna) for _ in range(3)]
        gate.set()
        assert [await called(world, turn) for turn in turns] == [BY_MODEL, BY_MODEL, BY_QUESTION]
        assert await called(world, await world.ask(anna)) == BY_MODEL, "later there is room again"


async def test_no_unit_of_work_is_open_while_the_model_is_awaited(world: World, anna: User) -> None:
    seen: list[int] = []
    world.title_vendor.while_speaking = lambda: seen.append(world.store.open_units)
    assert await called(world, await world.ask(anna)) == BY_MODEL
    assert set(seen) == {0}


# --- Thinking -------------------------------------------------------------------------------------------------------


async def test_what_the_model_thinks_is_never_in_a_title(world: World, anna: User) -> None:
    world.title_vendor.script = plays(Chunk(thinking="hm", text=""), "<think>\n", "hm, hm", "</think>\n\n", TITLE)
    assert await called(world, await world.ask(anna)) == BY_MODEL


async def test_what_was_thought_of_a_reply_is_no_part_of_what_the_title_is_made_from(world: World, anna: User) -> None:
    """However much is thought: there is enough of the reply only where it says something."""
    told = asyncio.Event()
    world.vendor.script = plays(Chunk(thinking="x" * 300), "the ", told, "answer")
    turn = (await world.send(anna)).turn
    await until(lambda: world.engine.last_number(turn.reply) >= 2)
    assert not world.titler._tasks
    told.set()
    assert await called(world, await world.end_of(turn)) == BY_MODEL
    [prompt] = world.title_vendor.prompts
    assert prompt.utterances[-1].content.endswith("Assistant:\nthe answer")


# --- A title of the user's own --------------------------------------------------------------------------------------


async def test_a_session_that_its_user_named_first_costs_no_call(world: World, anna: User) -> None:
    told = asyncio.Event()
    world.vendor.script = plays("half", told, LONG)
    turn = (await world.send(anna)).turn
    await rename(world, turn)
    told.set()
    assert [type(event) for event in await world.events(turn)] == [Delta, Delta, Ended]
    assert await called(world, turn) == ("mine", TitleSource.USER)
    assert world.title_vendor.prompts == []


@pytest.mark.parametrize("reply", ["short", LONG], ids=["after the end", "amid"])
async def test_a_title_by_its_user_stays_where_the_model_was_slower(world: World, anna: User, reply: str) -> None:
    gate, told = asyncio.Event(), asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    world.vendor.script = plays(reply, told) if reply == LONG else plays(reply)
    turn = (await world.send(anna)).turn
    await until(lambda: world.title_vendor.speaking)
    await rename(world, turn)
    gate.set()
    assert await called(world, turn) == ("mine", TitleSource.USER)
    told.set()
    assert [type(event) for event in await world.events(turn)] == [Delta, Ended], "nobody is told another one"


# --- Replies that do not end well -----------------------------------------------------------------------------------


async def test_a_first_turn_that_failed_gives_its_title_when_it_is_begun_again(world: World, anna: User) -> None:
    world.vendor.script = plays("half", LlmUnavailable())
    turn = await world.ask(anna, key=KEY)
    assert await called(world, turn) == BY_QUESTION
    assert world.title_vendor.prompts == []

    told = asyncio.Event()
    world.vendor.script = plays(LONG, told)
    again = (await world.send(anna, key=KEY)).turn
    await until(lambda: world.engine.last_number(again.reply) == 1_000_003)
    assert await called(world, turn) == BY_MODEL
    told.set()
    assert await numbered_events(world, again) == [
        Numbered(1_000_001, Replace("", "restarted")),
        Numbered(1_000_002, Delta(LONG)),
        Numbered(1_000_003, Titled(turn.message.session_id, TITLE)),
        Numbered(1_000_004, ended(await world.get(anna, again.reply.id))),
    ]


async def test_the_title_of_a_reply_that_fails_meanwhile_is_given_up(world: World, anna: User) -> None:
    told = asyncio.Event()
    world.title_vendor.script = plays(asyncio.Event())
    world.vendor.script = plays(LONG, told, LlmUnavailable())
    turn = (await world.send(anna, key=KEY)).turn
    await until(lambda: world.title_vendor.speaking)
    told.set()
    await world.end_of(turn)
    assert await called(world, turn) == BY_QUESTION
    assert world.title_vendor.speaking == 0, "its call was cancelled"

    world.title_vendor.script = plays(TITLE)
    world.vendor.script = plays(LONG)
    assert await called(world, await world.ask(anna, key=KEY)) == BY_MODEL


async def test_a_session_that_got_its_title_before_its_reply_failed_keeps_it(world: World, anna: User) -> None:
    told = asyncio.Event()
    world.vendor.script = plays(LONG, told, LlmUnavailable())
    turn = (await world.send(anna, key=KEY)).turn
    await until(lambda: world.engine.last_number(turn.reply) == 2)
    told.set()
    await world.end_of(turn)
    world.vendor.script = plays(LONG)
    assert await called(world, await world.ask(anna, key=KEY)) == BY_MODEL
    assert len(world.title_vendor.prompts) == 1


async def test_a_reply_that_was_stopped_gives_a_title_if_it_said_anything(world: World, anna: User) -> None:
    for said, title in (("half", BY_MODEL), ("", BY_QUESTION)):
        world.vendor.script = plays(*([said] if said else []), asyncio.Event())
        turn = (await world.send(anna)).turn
        await until(lambda: world.vendor.speaking)
        await asyncio.sleep(0)
        await world.replies.stop(anna, turn.reply.id)
        assert await called(world, turn) == title
    assert len(world.title_vendor.prompts) == 1


@pytest.mark.parametrize("reply", ["short", LONG], ids=["after the end", "amid"])
async def test_what_is_withdrawn_gives_no_title(world: World, anna: User, reply: str) -> None:
    gate = asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    world.vendor.script = plays(reply, BLOCKED)
    turn = await world.ask(anna)
    gate.set()
    assert await called(world, turn) == BY_QUESTION
    assert world.title_vendor.speaking == 0


@pytest.mark.parametrize(
    "end",
    [End.failure(LlmUnavailable(), NOW), an_end("refused", finish_reason=FinishReason.BLOCKED)],
    ids=["failed", "withdrawn"],
)
async def test_what_somebody_else_ended_badly_gives_no_title(world: World, anna: User, end: End) -> None:
    gate = asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    world.vendor.script = plays(LONG, asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.title_vendor.speaking)
    assert await world.store.inner.write(lambda tx: tx.replies.finish(turn.reply.id, 0, end))
    gate.set()
    assert await called(world, turn) == BY_QUESTION
    assert world.engine.last_number(turn.reply) == 1, "and nobody is told one"


# --- What is gone ---------------------------------------------------------------------------------------------------


async def test_a_turn_that_is_deleted_meanwhile_leaves_no_title(world: World, anna: User) -> None:
    gate = asyncio.Event()
    world.title_vendor.script = plays(gate, TITLE)
    turn = await world.ask(anna)
    later = await world.ask(anna, session_id=turn.message.session_id)
    await world.replies.delete(anna, turn.reply.id)
    gate.set()
    assert await called(world, later) == BY_QUESTION


async def test_the_title_of_a_reply_that_is_deleted_while_it_runs_is_given_up(world: World, anna: User) -> None:
    world.title_vendor.script = plays(asyncio.Event())
    world.vendor.script = plays(LONG, asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.title_vendor.speaking)
    await world.store.inner.write(lambda tx: tx.turns.delete(turn.message.session_id, 1, world.clock()))
    world.engine.give_up(turn.reply.id)
    await until(lambda: world.title_vendor.speaking == 0)


async def test_when_the_process_ends_no_title_is_left_behind(world: World, anna: User) -> None:
    world.title_vendor.script = plays(asyncio.Event())
    turn = await world.ask(anna)
    world.vendor.script = plays(LONG, asyncio.Event())
    await world.send(anna)
    await until(lambda: world.title_vendor.speaking == 2)
    await world.engine.drain(0)
    assert world.title_vendor.speaking == 0
    assert await called(world, turn) == BY_QUESTION


async def test_a_client_that_comes_late_gets_all_text_and_asks_the_session(world: World, anna: User) -> None:
    told = asyncio.Event()
    world.vendor.script = plays(LONG, told, *"x" * 300)
    turn = (await world.send(anna)).turn
    await until(lambda: world.engine.last_number(turn.reply) == 2)
    told.set()
    await world.end_of(turn)
    for expired in (False, True):
        if expired:
            world.feed.expire()
        for after in (0, 1, 2):
            client = Client(anna, turn.reply.id, after)
            client.text = LONG if after else ""
            await client.comes(world)
            await client.hears_the_end()
            assert client.text == LONG + "x" * 300
