"""Following a reply: over its feed where it is held, over its row where it is not."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.domain.errors import MessageNotFound, ShuttingDown, StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace
from chatassist.domain.replies import follow
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT, FinishReason, Status, Turn
from tests.builders import a_session, a_turn, a_user, an_end
from tests.unit.worlds import PATIENCE, REFUSAL, World, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[World]:
    """Another process on the same database."""
    async with World(beside=world) as elsewhere:
        yield elsewhere


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


@pytest.fixture
def go_on() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def growing(world: World, anna: User, go_on: asyncio.Event) -> Turn:
    """A turn whose reply has said `half` and waits to go on."""
    world.vendor.script = plays("half", go_on, " and half")
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)
    await asyncio.sleep(0)
    return turn


# --- Settling over the feed -----------------------------------------------------------------------------------------


async def test_settling_waits_for_the_end_and_no_longer(world: World, growing: Turn, go_on: asyncio.Event) -> None:
    settling = asyncio.create_task(world.follower.settle(growing, PATIENCE))
    await asyncio.sleep(0)
    assert not settling.done()

    go_on.set()

    settled = await settling
    assert settled.reply.content == "half and half"
    assert settled == await world.kept(growing)


async def test_every_kind_of_event_shows_in_what_is_settled(world: World) -> None:
    turn = a_turn(a_session(a_user()))
    await world.feed.open(turn.reply.id, 0)

    await world.feed.append(turn.reply.id, Delta("one "), Delta("two"))
    assert (await world.follower.settle(turn, 0)).reply.content == "one two"
    await world.feed.append(turn.reply.id, Replace("new", "moderation"), Delta("er"))
    settled = await world.follower.settle(turn, 0)
    assert (settled.reply.content, settled.reply.status) == ("newer", Status.RUNNING)
    await world.feed.append(turn.reply.id, Ended(an_end(None)))
    assert (await world.follower.settle(turn, 0)).reply == turn.reply.ended(an_end("newer"))


async def test_settling_without_time_tells_what_there_is(world: World, growing: Turn) -> None:
    settled = await world.follower.settle(growing, 0)

    assert settled == replace(growing, reply=replace(growing.reply, content="half"))


async def test_settling_keeps_to_its_time(world: World, growing: Turn) -> None:
    started = time.monotonic()

    assert (await world.follower.settle(growing, 0.02)).reply.content == "half"

    assert 0.019 <= time.monotonic() - started < PATIENCE


async def test_text_the_row_knows_already_is_not_counted_twice(world: World, growing: Turn) -> None:
    stored = replace(growing, reply=replace(growing.reply, content="hal"))

    assert (await world.follower.settle(stored, 0)).reply.content == "half"


async def test_settling_needs_no_database_where_the_feed_is_held(
    world: World, growing: Turn, go_on: asyncio.Event
) -> None:
    world.store.away = True
    settling = asyncio.create_task(world.follower.settle(growing, PATIENCE))
    await asyncio.sleep(0)
    world.store.away = False
    go_on.set()

    assert (await settling).reply.status is Status.COMPLETE


async def test_a_later_attempt_is_settled_from_its_own_numbers(world: World, anna: User) -> None:
    turn = a_turn(a_session(anna), attempt=2)
    await world.feed.open(turn.reply.id, 2 * NUMBERS_PER_ATTEMPT)
    await world.feed.append(turn.reply.id, Replace("", "restarted"), Delta("new"), Ended(an_end("new")))

    assert (await world.follower.settle(turn, 0)).reply.content == "new"


async def test_a_reply_of_more_events_than_are_held_is_settled_whole(world: World, anna: User) -> None:
    world.vendor.script = plays(*["字"] * 1000)

    assert (await world.ask(anna)).reply.content == "字" * 1000


# --- Settling over the row ------------------------------------------------------------------------------------------


async def test_a_reply_that_runs_elsewhere_is_settled_when_its_end_is_stored(
    elsewhere: World, growing: Turn, go_on: asyncio.Event
) -> None:
    settling = asyncio.create_task(elsewhere.follower.settle(growing, PATIENCE))
    await asyncio.sleep(0.005)
    assert not settling.done()

    go_on.set()

    assert (await settling).reply.content == "half and half"


async def test_a_reply_that_runs_elsewhere_is_told_as_running_when_the_time_is_over(
    elsewhere: World, growing: Turn
) -> None:
    started = time.monotonic()

    assert (await elsewhere.follower.settle(growing, 0.01)).reply.status is Status.RUNNING
    assert time.monotonic() - started >= 0.009
    assert (await elsewhere.follower.settle(growing, 0)).reply.status is Status.RUNNING


async def test_a_reply_whose_feed_is_opened_while_one_waits_is_followed_there(
    elsewhere: World, anna: User, growing: Turn
) -> None:
    settling = asyncio.create_task(elsewhere.follower.settle(growing, PATIENCE))
    await asyncio.sleep(0.003)

    await elsewhere.feed.open(growing.reply.id, 0)
    await elsewhere.feed.append(growing.reply.id, Delta("here"), Ended(an_end("here")))

    assert (await settling).reply.content == "here"


async def test_a_reply_whose_process_vanishes_while_one_waits_is_interrupted(
    world: World, elsewhere: World, growing: Turn
) -> None:
    settling = asyncio.create_task(elsewhere.follower.settle(growing, PATIENCE))
    await asyncio.sleep(0.003)

    world.clock.advance(15)

    settled = await settling
    assert settled.reply.reason == "reply_interrupted"
    assert await world.kept(growing) == settled


async def test_a_reply_that_was_deleted_while_one_waits_is_not_found(elsewhere: World, growing: Turn) -> None:
    elsewhere.store.inner = World().store.inner

    with pytest.raises(MessageNotFound):
        await elsewhere.follower.settle(growing, PATIENCE)


async def test_where_neither_feed_nor_row_can_be_read_that_is_said(elsewhere: World, growing: Turn) -> None:
    elsewhere.store.away = True

    with pytest.raises(StoreUnavailable):
        await elsewhere.follower.settle(growing, PATIENCE)


# --- Events ---------------------------------------------------------------------------------------------------------


async def test_events_are_told_from_the_first_to_the_end(world: World, growing: Turn, go_on: asyncio.Event) -> None:
    following = asyncio.create_task(world.events(growing))
    await asyncio.sleep(0)
    go_on.set()

    half, rest, end = await following

    assert (half, rest) == (Delta("half"), Delta(" and half"))
    assert isinstance(end, Ended)
    assert await world.events(growing) == [half, rest, end]  # for those who come late, too


async def test_events_can_be_told_from_any_number_on(
    world: World, anna: User, growing: Turn, go_on: asyncio.Event
) -> None:
    go_on.set()
    await world.end_of(growing)

    turn, events = await world.replies.follow(anna, growing.reply.id, 1)

    assert [numbered.seq async for batch in events for numbered in batch] == [2, 3]
    assert turn == await world.kept(growing)


async def test_a_silence_is_told_as_nothing_and_waited_through(
    world: World, growing: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "SILENCE", 0.001)
    async with aclosing(world.follower.follow(growing, 0)) as events:
        assert list(await anext(events)) == [Numbered(1, Delta("half"))]
        assert [list(await anext(events)) for _ in range(3)] == [[], [], []]

        await world.engine.drain(0)

        ended = [batch async for batch in events if batch]
    assert [type(one.event) for batch in ended for one in batch] == [Ended]


async def test_a_reply_cut_by_the_vendors_censor_tells_its_replacement(world: World, anna: User) -> None:
    world.vendor.script = plays("some", Chunk(finish_reason=FinishReason.BLOCKED))
    turn = (await world.send(anna)).turn

    assert (await world.events(turn))[:2] == [Delta("some"), Replace(REFUSAL, "moderation")]


async def test_events_of_a_reply_that_nobody_holds_here_are_its_text_and_its_end(
    elsewhere: World, growing: Turn, go_on: asyncio.Event
) -> None:
    following = asyncio.create_task(elsewhere.events(growing))
    await asyncio.sleep(0.003)
    assert not following.done()

    go_on.set()

    text, ended = await following
    assert text == Replace("half and half", "resync")
    assert isinstance(ended, Ended)
    assert ended.end.content == "half and half"


async def test_events_of_a_reply_that_nobody_knows_are_none(world: World, anna: User) -> None:
    with pytest.raises(MessageNotFound):
        await world.events(a_turn(a_session(anna)))


async def test_a_follower_who_leaves_does_not_end_the_reply(world: World, growing: Turn, go_on: asyncio.Event) -> None:
    following = asyncio.create_task(world.events(growing))
    await asyncio.sleep(0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    go_on.set()

    assert (await world.end_of(growing)).reply.content == "half and half"


# --- Produced elsewhere, with a feed that reaches here ----------------------------------------------------------------


@pytest.fixture
async def far(world: World) -> AsyncIterator[World]:
    """Another process on the same database and the same feed."""
    async with World(beside=world, feed=world.feed) as far:
        yield far


async def test_who_follows_a_lively_reply_of_another_process_is_let_go_at_once(far: World, growing: Turn) -> None:
    async with aclosing(far.follower.follow(growing, 0)) as events:
        assert list(await anext(events)) == [Numbered(1, Delta("half"))]
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        far.follower.close()
        await far.feed.append(growing.reply.id, Delta(" and more"))

        with pytest.raises(ShuttingDown):
            await asyncio.wait_for(waiting, PATIENCE)


async def test_who_begins_to_follow_when_this_process_is_closed_is_let_go_too(far: World, growing: Turn) -> None:
    far.follower.close()
    with pytest.raises(ShuttingDown):
        async with aclosing(far.follower.follow(growing, 1)) as events:
            await asyncio.wait_for(anext(events), PATIENCE)


async def test_who_waits_for_the_end_of_another_processs_reply_gets_what_there_is_when_this_one_closes(
    far: World, growing: Turn
) -> None:
    settling = asyncio.create_task(far.follower.settle(growing, 1000))
    await asyncio.sleep(0)
    far.follower.close()

    settled = (await asyncio.wait_for(settling, PATIENCE)).reply
    assert (settled.status, settled.content) == (Status.RUNNING, "half")


async def test_who_looks_at_the_row_of_another_processs_reply_is_let_go_at_once(
    elsewhere: World, growing: Turn
) -> None:
    elsewhere.follower._look_again = 1000
    settling = asyncio.create_task(elsewhere.follower.settle(growing, 1000))
    following = asyncio.create_task(elsewhere.events(growing))
    await asyncio.sleep(0.01)
    assert not settling.done()
    assert not following.done()
    elsewhere.follower.close()

    assert (await asyncio.wait_for(settling, PATIENCE)).reply.status is Status.RUNNING
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(following, PATIENCE)


async def test_a_reply_whose_process_died_is_settled_although_its_feed_is_still_held(
    world: World, far: World, growing: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "SILENCE", 0.001)
    await far.lease.renew()
    settling = asyncio.create_task(far.follower.settle(growing, 1000))
    await asyncio.sleep(0.01)
    assert not settling.done()
    world.clock.advance(15)

    settled = (await asyncio.wait_for(settling, PATIENCE)).reply
    assert (settled.status, settled.reason) == (Status.FAILED, "reply_interrupted")


@pytest.mark.parametrize("outside", [False, True])
async def test_an_end_that_was_stored_although_its_owner_never_heard_is_the_one_that_is_told(
    world: World, anna: User, outside: bool
) -> None:
    """The database went away after it had stored the end, and stayed away until the owner gave up."""
    turn = await world.ask(anna)
    if outside:
        shorter = replace(turn.reply, content="an", seq=turn.reply.last_seq)
        turn = replace(turn, reply=shorter)
    unheard = replace(an_end("an answer", status=Status.FAILED), reason="reply_not_stored")
    await world.feed.open(turn.reply.id, 0)
    await world.feed.append(turn.reply.id, Delta("an answer"), Ended(unheard))

    events = [numbered async for batch in world.follower.follow(turn, 0) for numbered in batch]

    last = Numbered(turn.reply.seq, Ended(turn.reply.end)) if turn.reply.end else None
    resync = [Numbered(turn.reply.seq - 1, Replace("an", "resync"))] if outside else []
    assert events == [Numbered(1, Delta("an answer")), *resync, last]
    assert [numbered async for batch in world.follower.follow(turn, 1) for numbered in batch] == [*resync, last]


async def test_an_end_that_may_not_be_stored_is_told_while_nothing_else_is_known(world: World, growing: Turn) -> None:
    unheard = replace(an_end("half", status=Status.FAILED), reason="reply_not_stored")
    await world.feed.append(growing.reply.id, Ended(unheard))
    assert await world.events(growing) == [Delta("half"), Ended(unheard)]
