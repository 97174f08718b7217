"""What a user sees of his sessions and their history, on fakes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.domain.errors import (
    BadCursor,
    ContentInvalid,
    LlmUnavailable,
    SessionNotFound,
    TitleEmpty,
    TitleTooLong,
    TooManyReads,
)
from chatassist.domain.model import Preferences, Prompt, Session, User
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.services.history import Item, Page
from chatassist.domain.turns import Message, Status
from tests.builders import new_id
from tests.unit.worlds import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


async def shown(world: World, user: User, session_id: str, **wish: object) -> Page:
    session = await world.sessions.get(user, session_id)
    return await world.history.page(session, **{"limit": 20, **wish})  # type: ignore[arg-type]


def texts(page: Page) -> list[str]:
    return [item.content if isinstance(item, Message) else item.turn.reply.content for item in page.items]


def ids(page: Page) -> list[str]:
    return [_id(item) for item in page.items]


def _id(item: Item) -> str:
    return item.id if isinstance(item, Message) else item.turn.reply.id


async def a_talk(world: World, user: User, *questions: str) -> str:
    world.vendor.script = lambda prompt: plays(f"re: {prompt.utterances[-1].content}")(prompt)
    turn = await world.ask(user, questions[0])
    for question in questions[1:]:
        await world.ask(user, question, session_id=turn.message.session_id)
    return turn.message.session_id


# --- Lists ----------------------------------------------------------------------------------------------------------


async def test_a_list_goes_on_until_its_end(world: World, anna: User) -> None:
    sessions = []
    for question in "abcde":
        sessions.append(await a_talk(world, anna, question))
        world.clock.advance(1)
    first = await world.sessions.page(anna, limit=2)
    assert first.rest
    second = await world.sessions.page(anna, limit=2, mark=first.rest)
    assert second.rest
    third = await world.sessions.page(anna, limit=2, mark=second.rest)
    assert third.rest is None
    listed = [one.id for page in (first, second, third) for one in page.sessions]
    assert listed == sessions[::-1]
    assert (await world.sessions.page(anna, limit=5)).rest is None


async def test_a_session_of_which_nothing_came_is_not_listed_but_can_be_looked_at(world: World, anna: User) -> None:
    world.vendor.script = plays(LlmUnavailable())
    turn = await world.ask(anna, "a question")
    assert (await world.sessions.page(anna, limit=9)).sessions == []
    assert (await world.sessions.get(anna, turn.message.session_id)).running == 0
    assert texts(await shown(world, anna, turn.message.session_id)) == ["a question", ""]


async def test_a_keyword_that_no_title_can_have_is_refused(world: World, anna: User) -> None:
    with pytest.raises(ContentInvalid):
        await world.sessions.page(anna, limit=9, keyword="a\x00")


# --- Names and pins -------------------------------------------------------------------------------------------------


async def test_a_title_is_trimmed_and_the_users_for_good(world: World, anna: User) -> None:
    session_id = await a_talk(world, anna, "a")
    named = await world.sessions.edit(anna, session_id, title=" \u3000我的 会话\n", pinned=None)
    assert named.title == "我的 会话"
    assert not await world.store.write(lambda tx: tx.sessions.entitle(session_id, "a model's"))
    assert (await world.sessions.edit(anna, session_id, title="字" * 60, pinned=True)).pinned


@pytest.mark.parametrize(
    ("title", "error"),
    [
        ("", TitleEmpty),
        (" \t\n\u3000", TitleEmpty),
        ("x" * 61, TitleTooLong),
        ("😀" * 61, TitleTooLong),
        ("a\ud800", ContentInvalid),
        ("a\x07", ContentInvalid),
    ],
)
async def test_a_title_that_is_none_is_refused(world: World, anna: User, title: str, error: type[Exception]) -> None:
    session_id = await a_talk(world, anna, "a")
    with pytest.raises(error):
        await world.sessions.edit(anna, session_id, title=title, pinned=True)
    assert not (await world.sessions.get(anna, session_id)).pinned


async def test_what_changes_nothing_writes_nothing(world: World, anna: User) -> None:
    session_id = await a_talk(world, anna, "a")
    before = world.store.written
    session = await world.sessions.edit(anna, session_id, title=None, pinned=None)
    assert (session.id, world.store.written) == (session_id, before)


async def test_nobody_elses_no_unsaved_and_no_unknown_session_exists(world: World, anna: User) -> None:
    theirs = await a_talk(world, await world.somebody("bert"), "a")
    private = replace(anna, preferences=Preferences(save_history=False))
    unsaved = await a_talk(world, private, "a")
    for session_id in (theirs, unsaved, new_id(), "nonsense", ""):
        with pytest.raises(SessionNotFound):
            await world.sessions.get(private, session_id)
        for title, pinned in (("x", None), (None, True), (None, None)):
            with pytest.raises(SessionNotFound):
                await world.sessions.edit(private, session_id, title=title, pinned=pinned)
    assert (await world.sessions.page(private, limit=9)).sessions == []


async def test_every_look_is_counted() -> None:
    async with World(limits={Rule.READS: 3}) as world:
        anna = await world.somebody("anna")
        session_id = await a_talk(world, anna, "a")
        await world.sessions.get(anna, session_id)
        await world.sessions.edit(anna, session_id, title="x", pinned=None)
        await world.sessions.edit(anna, session_id, title=None, pinned=None)
        with pytest.raises(TooManyReads):
            await world.sessions.get(anna, session_id)
        with pytest.raises(TooManyReads):
            await world.sessions.edit(anna, session_id, title=None, pinned=True)


# --- History --------------------------------------------------------------------------------------------------------


async def test_history_pages_both_ways_from_any_message(world: World, anna: User) -> None:
    session_id = await a_talk(world, anna, "a", "b", "c")
    everything = await shown(world, anna, session_id)
    assert texts(everything) == ["a", "re: a", "b", "re: b", "c", "re: c"]
    assert (everything.more_before, everything.more_after, everything.settled) == (False, False, True)
    known = ids(everything)
    assert ids(await shown(world, anna, session_id, limit=3)) == known[3:]
    assert ids(await shown(world, anna, session_id, limit=2, anchor=known[3])) == known[1:3]
    newer = await shown(world, anna, session_id, limit=2, anchor=known[2], older=False)
    assert (ids(newer), newer.more_before, newer.more_after) == (known[3:5], True, True)
    assert ids(await shown(world, anna, session_id, anchor=known[0])) == []
    assert ids(await shown(world, anna, session_id, anchor=known[5], older=False)) == []


async def test_any_version_is_the_place_of_its_reply(world: World, anna: User) -> None:
    session_id = await a_talk(world, anna, "a")
    [_, first] = (await shown(world, anna, session_id)).items
    again = (await world.messages.regenerate(anna, _id(first))).turn
    await world.end_of(again)
    await world.ask(anna, "b", session_id=session_id)
    page = await shown(world, anna, session_id)
    assert _id(page.items[1]) == again.reply.id
    assert not isinstance(page.items[1], Message)
    assert page.items[1].versions == [_id(first), again.reply.id]
    for version in page.items[1].versions:
        assert texts(await shown(world, anna, session_id, anchor=version)) == ["a"]
        assert texts(await shown(world, anna, session_id, anchor=version, older=False)) == ["b", "re: b"]


async def test_an_anchor_of_elsewhere_is_none(world: World, anna: User) -> None:
    session_id, other = await a_talk(world, anna, "a"), await a_talk(world, anna, "b")
    theirs = await a_talk(world, bert := await world.somebody("bert"), "c")
    elsewhere = [*ids(await shown(world, anna, other)), *ids(await shown(world, bert, theirs))]
    gone = ids(await shown(world, anna, session_id))
    await world.replies.delete(anna, gone[1])
    for anchor in (*elsewhere, *gone, session_id, new_id(), "nonsense", ""):
        for older in (True, False):
            with pytest.raises(BadCursor):
                await shown(world, anna, session_id, anchor=anchor, older=older)


async def test_a_reply_in_the_making_shows_its_text_so_far_and_is_not_settled(world: World, anna: User) -> None:
    let_go = asyncio.Event()

    async def halting(_: Prompt) -> AsyncGenerator[Chunk, None]:
        yield Chunk(text="half")
        await let_go.wait()
        yield Chunk(text=" and half")

    session_id = await a_talk(world, anna, "a")
    world.vendor.script = halting
    turn = (await world.send(anna, "b", session_id=session_id)).turn
    async with aclosing(world.replies.events(turn)) as events:
        await anext(events)
    page = await shown(world, anna, session_id)
    assert (texts(page)[-1], page.settled) == ("half", False)
    assert not (await shown(world, anna, session_id, anchor=turn.message.id)).settled, "its session may change any time"
    let_go.set()
    await world.end_of(turn)
    page = await shown(world, anna, session_id)
    assert (texts(page)[-1], page.settled) == ("half and half", True)


async def test_an_orphan_reads_as_interrupted(world: World, anna: User) -> None:
    started = asyncio.Event()

    async def forever(_: Prompt) -> AsyncGenerator[Chunk, None]:
        started.set()
        await asyncio.Event().wait()
        yield Chunk(text="")

    world.vendor.script = forever
    turn = (await world.send(anna, "a")).turn
    await started.wait()
    world.clock.advance(VALID_SECONDS + 1)
    async with World(beside=world) as other:
        page = await shown(other, anna, turn.message.session_id)
        assert not isinstance(page.items[1], Message)
        reply = page.items[1].turn.reply
        assert (reply.status, reply.reason) == (Status.FAILED, "reply_interrupted")
        assert not page.settled
        assert (await shown(other, anna, turn.message.session_id)).settled


async def test_a_turn_that_is_deleted_meanwhile_shows_nothing_of_its_reply(world: World, anna: User) -> None:
    session_id = await a_talk(world, anna, "a")
    stale: Session = await world.sessions.get(anna, session_id)
    [_, reply] = ids(await shown(world, anna, session_id))
    await world.replies.delete(anna, reply)
    assert (await world.history.page(stale, limit=9)).items == []
