"""Streams of a reply: numbers, going on from any of them, silences, other processes, and readers who do not read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.domain.errors import BadSeq, LlmUnavailable, MessageNotFound, ShuttingDown, StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace, Thinking
from chatassist.domain.replies import follow
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import End, FinishReason, Turn
from tests.builders import a_session, a_turn, new_id
from tests.unit.clients import Client
from tests.unit.worlds import PATIENCE, REFUSAL, Fault, WitnessedFeed, World, until

KEY = "key-1"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[World]:
    """Another process on the same database, without a feed in common."""
    async with World(beside=world, script=plays("anew")) as elsewhere:
        yield elsewhere


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


async def under_way(world: World, *steps: Step, key: str | None = None) -> Turn:
    """A turn whose reply has come as far as its steps go without waiting."""
    before = world.vendor.speaking
    world.vendor.script = plays(*steps or ("half", asyncio.Event()))
    turn = (await world.send(await world.somebody("anna"), key=key)).turn
    await until(lambda: world.vendor.speaking > before)
    for _ in range(3):
        await asyncio.sleep(0)
    return turn


async def stream(world: World, turn: Turn, after: int = 0) -> list[Numbered]:
    """All that a stream brings."""
    _, events = await world.replies.follow(await world.somebody("anna"), turn.reply.id, after)
    return [numbered async for batch in events for numbered in batch]


def kinds(events: Sequence[Numbered]) -> list[tuple[int, str]]:
    return [(numbered.seq, type(numbered.event).__name__) for numbered in events]


def ended(turn: Turn) -> Ended:
    assert turn.reply.end
    return Ended(turn.reply.end)


# --- Numbers --------------------------------------------------------------------------------------------------------


async def test_events_are_numbered_from_one_and_the_ends_number_is_stored(world: World, anna: User) -> None:
    world.vendor.script = plays(Chunk(thinking="hm", text="a"), "b")
    turn = await world.ask(anna)

    assert await stream(world, turn) == [
        Numbered(1, Thinking("hm")),
        Numbered(2, Delta("a")),
        Numbered(3, Delta("b")),
        Numbered(4, ended(turn)),
    ]
    kept = await world.kept(turn)
    assert kept
    assert (kept.reply.seq, kept.reply.thinking) == (4, "hm")


async def test_every_attempt_is_numbered_from_its_million_and_opens_with_a_restart(world: World, anna: User) -> None:
    for attempt in range(3):
        world.vendor.script = plays("half", LlmUnavailable())
        turn = (await world.send(anna, key=KEY)).turn
        events = await world.events(turn)
        first = [] if attempt == 0 else [Replace("", "restarted")]
        failed = await world.get(anna, turn.reply.id)
        assert events == [*first, Delta("half"), ended(failed)]
        assert failed.reply.seq == attempt * 1_000_000 + len(events)
        assert failed.reply.attempt == attempt


async def test_a_stream_that_goes_on_into_the_next_attempt_sees_it_begin(world: World, anna: User) -> None:
    world.vendor.script = plays("half", LlmUnavailable())
    failed = await world.ask(anna, key=KEY)
    world.vendor.script = plays("whole")
    whole = await world.ask(anna, key=KEY)

    for after in (0, 1, failed.reply.seq, 1_000_000):
        assert await stream(world, whole, after) == [
            Numbered(1_000_001, Replace("", "restarted")),
            Numbered(1_000_002, Delta("whole")),
            Numbered(1_000_003, ended(whole)),
        ]
    world.feed.expire()
    for after in (0, 1, failed.reply.seq, 1_000_000, 1_000_001):
        assert await stream(world, whole, after) == [
            Numbered(1_000_002, Replace("whole", "resync")),
            Numbered(1_000_003, ended(whole)),
        ]


@pytest.mark.parametrize("attempt", [0, 2])
async def test_an_end_from_outside_has_the_attempts_last_number_with_all_text_before_it(
    world: World, elsewhere: World, anna: User, attempt: int
) -> None:
    for _ in range(attempt):
        world.vendor.script = plays(LlmUnavailable())
        await world.ask(anna, key=KEY)
    turn = await under_way(world, "half", asyncio.Event(), key=KEY)
    await world.engine.save()
    following = asyncio.create_task(stream(world, turn))
    await asyncio.sleep(0)
    last = (attempt + 1) * 1_000_000

    stopped = await elsewhere.ends.from_outside(turn, End.stop(world.clock()))
    await world.engine.look_for_stopped()

    tail = [Numbered(last - 1, Replace("half", "resync")), Numbered(last, ended(stopped))]
    assert stopped.reply.seq == last
    assert (await following)[-2:] == tail
    for each in (world, elsewhere):
        assert await stream(each, turn, 0) == tail
        each.feed.expire()
        assert await stream(each, turn, 0) == tail


async def test_what_the_vendor_refuses_is_replaced_in_the_stream(world: World, anna: User) -> None:
    world.vendor.script = plays(Chunk(text="some", thinking="hm"), Chunk(finish_reason=FinishReason.BLOCKED))
    turn = await world.ask(anna)

    events = await stream(world, turn)

    assert kinds(events) == [(1, "Thinking"), (2, "Delta"), (3, "Replace"), (4, "Ended")]
    assert events[2].event == Replace(REFUSAL, "moderation")
    assert (turn.reply.seq, turn.reply.content, turn.reply.thinking) == (4, REFUSAL, "")


async def test_the_end_of_a_defect_while_storing_is_numbered_without_a_gap(world: World, anna: User) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event())
    world.store.faults.append(Fault.DEFECT)
    following = asyncio.create_task(stream(world, turn))
    await asyncio.sleep(0)
    go_on.set()

    events = await following

    assert kinds(events) == [(1, "Delta"), (2, "Replace"), (3, "Ended")]
    assert (events[1].event, (await world.get(anna, turn.reply.id)).reply.seq) == (Replace("", "resync"), 3)


# --- From any number on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("held", [True, False], ids=["held", "no longer held"])
async def test_a_stream_goes_on_from_any_number(world: World, anna: User, after: int, held: bool) -> None:
    world.vendor.script = plays("a", "b", "c")
    turn = await world.ask(anna)
    if not held:
        world.feed.expire()
    client = Client(anna, turn.reply.id, after)
    client.text = "abc"[:after]

    client.take(await stream(world, turn, after))

    assert (client.text, client.end, client.seq) == ("abc", turn.reply.end, 4)


async def test_of_events_no_longer_held_all_text_is_told_at_once_and_then_what_comes(world: World, anna: User) -> None:
    many = ["字"] * 1000
    turn = await under_way(world, *many, go_on := asyncio.Event(), "!")
    await until(lambda: world.engine.last_number(turn.reply) == 1000)

    _, events = await world.replies.follow(anna, turn.reply.id, 3)
    async with aclosing(events):
        assert list(await anext(events)) == [Numbered(1000, Replace("字" * 1000, "resync"))]
        go_on.set()
        assert [kind async for batch in events for kind in kinds(batch)] == [(1001, "Delta"), (1002, "Ended")]


async def test_a_number_that_was_never_told_is_refused(world: World, anna: User) -> None:
    turn = await under_way(world, "a", "b", asyncio.Event())
    for after in (-1, 3, 1_000_000):
        with pytest.raises(BadSeq):
            await world.replies.follow(anna, turn.reply.id, after)

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn
    assert stopped.reply.seq == 3
    for after in (-1, 4, 1_000_000):
        with pytest.raises(BadSeq):
            await world.replies.follow(anna, turn.reply.id, after)
    assert await stream(world, turn, 3) == [Numbered(3, ended(stopped))]


async def test_a_number_that_was_never_told_is_refused_elsewhere_too_where_that_can_be_asked(
    world: World, anna: User
) -> None:
    async with World(beside=world, feed=world.feed) as elsewhere:
        turn = await under_way(world, "a", "b", asyncio.Event())
        for after in (-1, 3, 1_000_000):
            with pytest.raises(BadSeq):
                await elsewhere.replies.follow(anna, turn.reply.id, after)
        for after in (0, 1, 2):
            await elsewhere.replies.follow(anna, turn.reply.id, after)


async def test_of_an_earlier_attempt_a_process_that_slept_gives_no_word_for_the_later_one(
    world: World, anna: User
) -> None:
    async with World(beside=world, feed=world.feed) as elsewhere:
        turn = a_turn(a_session(anna), attempt=1)
        await world.feed.open(turn.reply.id, 0)
        await world.feed.append(turn.reply.id, Delta("too late"))
        assert await elsewhere.follower.may_have_told(turn, 1_000_003)
        await world.feed.open(turn.reply.id, 1_000_000)
        assert not await elsewhere.follower.may_have_told(turn, 1_000_003)


async def test_what_another_process_has_told_is_not_refused_here(world: World, elsewhere: World, anna: User) -> None:
    """How far it came is not known here, only how far it can come."""
    turn = await under_way(world, "a", "b", go_on := asyncio.Event())
    _, events = await elsewhere.replies.follow(anna, turn.reply.id, 2)
    for after in (-1, 1_000_001):
        with pytest.raises(BadSeq):
            await elsewhere.replies.follow(anna, turn.reply.id, after)
    go_on.set()

    assert [kind async for batch in events for kind in kinds(batch)] == [(3, "Ended")]


async def test_a_process_that_slept_takes_the_numbers_of_a_later_attempt(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world, key=KEY)
    world.clock.advance(VALID_SECONDS)
    elsewhere.vendor.script = plays("a", "b", asyncio.Event())
    await elsewhere.send(anna, key=KEY)
    await until(lambda: elsewhere.vendor.speaking)

    turn, _ = await world.replies.follow(anna, turn.reply.id, 1_000_003)

    assert turn.reply.attempt == 1


async def test_only_ones_own_replies_are_followed(world: World, anna: User) -> None:
    boris = await world.somebody("boris")
    turn = await world.ask(anna)

    for user, reply_id in [(boris, turn.reply.id), (anna, turn.message.id), (anna, new_id()), (anna, "garbage")]:
        with pytest.raises(MessageNotFound):
            await world.replies.follow(user, reply_id, 0)


# --- Silence --------------------------------------------------------------------------------------------------------


class Silent(MemoryReplyFeed):
    """A feed in which nothing comes, and no time passes; it remembers how long it was listened to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    async def read(self, reply_id: str, after: int, wait: float) -> Sequence[Numbered] | None:
        await asyncio.sleep(0)
        self.waits.append(wait)
        return ()


async def test_every_ten_seconds_of_silence_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = await under_way(world)
    monkeypatch.setattr(world.follower, "_feed", silent := Silent())

    async with aclosing(world.follower.follow(turn, 0)) as events:
        assert [list(await anext(events)) for _ in range(3)] == [[], [], []]

    assert silent.waits == [10.0, 10.0, 10.0]


async def test_a_reply_elsewhere_is_listened_to_and_its_row_looked_at_in_silence(
    world: World, elsewhere: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the death of its process is noticed."""
    turn = await under_way(world)
    monkeypatch.setattr(elsewhere.follower, "_feed", silent := Silent())

    async with aclosing(elsewhere.follower.follow(turn, 0)) as events:
        assert list(await anext(events)) == []
        assert silent.waits == [10.0]
        world.clock.advance(VALID_SECONDS)
        assert kinds(await anext(events)) == [(999_999, "Replace"), (1_000_000, "Ended")]
    assert silent.waits == [10.0, 10.0]


async def test_silence_is_told_where_only_the_row_is_looked_at(
    elsewhere: World, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = await under_way(world)
    monkeypatch.setattr(follow, "SILENCE", 0.002)

    async with aclosing(elsewhere.follower.follow(turn, 0)) as events:
        assert [list(await anext(events)) for _ in range(2)] == [[], []]


# --- Another process ------------------------------------------------------------------------------------------------


async def test_without_a_feed_in_common_the_saved_text_is_told_once_and_the_whole_at_the_end(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world, "a", one := asyncio.Event(), "b", two := asyncio.Event(), "c")
    await world.engine.save()
    _, events = await elsewhere.replies.follow(anna, turn.reply.id, 0)
    async with aclosing(events):
        assert list(await anext(events)) == [Numbered(1, Replace("a", "resync"))]
        one.set()
        await asyncio.sleep(0.001)
        await world.engine.save()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.01)
        assert not waiting.done()

        two.set()

        assert kinds(await waiting) == [(3, "Replace"), (4, "Ended")]


async def test_with_a_feed_in_common_every_event_is_told_as_it_comes(anna: User) -> None:
    feed = WitnessedFeed()
    async with World(feed=feed) as owner, World(beside=owner, feed=feed) as elsewhere:
        turn = await under_way(owner, "a", go_on := asyncio.Event(), "b")
        _, events = await elsewhere.replies.follow(await owner.somebody("anna"), turn.reply.id, 0)
        async with aclosing(events):
            assert kinds(await anext(events)) == [(1, "Delta")]
            go_on.set()
            assert [kind async for batch in events for kind in kinds(batch)] == [(2, "Delta"), (3, "Ended")]


async def test_a_follower_elsewhere_sees_a_vanished_process_as_an_interruption(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world)
    await world.engine.save()
    following = asyncio.create_task(stream(elsewhere, turn))
    await asyncio.sleep(0.002)

    world.clock.advance(VALID_SECONDS)

    events = await following
    kept = await world.kept(turn)
    assert kept
    assert (kept.reply.reason, events[-1]) == ("reply_interrupted", Numbered(1_000_000, ended(kept)))
    assert events[-2] == Numbered(999_999, Replace("half", "resync"))


async def test_only_the_stream_breaks_when_the_row_cannot_be_read(world: World, elsewhere: World, anna: User) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event())
    _, events = await elsewhere.replies.follow(anna, turn.reply.id, 0)
    elsewhere.store.away = True

    with pytest.raises(StoreUnavailable):
        await anext(events)

    go_on.set()
    assert (await world.end_of(turn)).reply.content == "half"


async def test_a_follower_of_a_deleted_reply_elsewhere_is_told_so(world: World, elsewhere: World, anna: User) -> None:
    turn = await under_way(world)
    following = asyncio.create_task(stream(elsewhere, turn))
    await asyncio.sleep(0.002)

    await world.replies._stopper.erase(turn)

    with pytest.raises(MessageNotFound):
        await following


# --- Going away -----------------------------------------------------------------------------------------------------


async def test_a_drain_tells_local_followers_their_end_and_those_of_others_to_go_elsewhere(
    world: World, elsewhere: World, anna: User
) -> None:
    theirs, ours = await under_way(elsewhere), await under_way(world)
    local, remote = asyncio.create_task(stream(world, ours)), asyncio.create_task(stream(world, theirs))
    await asyncio.sleep(0.002)

    await world.services.drain(0)

    assert kinds(await local) == [(1, "Delta"), (2, "Ended")]
    with pytest.raises(ShuttingDown):
        await remote
    kept = await world.kept(theirs)
    assert kept
    assert kept.reply.status == "running"
    settled = await asyncio.wait_for(world.messages.settle(theirs, PATIENCE), 1)  # nor is it waited for
    assert settled.reply.status == "running"


@pytest.mark.parametrize("steps", range(6))
async def test_draining_again_at_any_moment_after_followers_were_let_go_is_harmless(
    world: World, elsewhere: World, steps: int
) -> None:
    following = asyncio.create_task(stream(world, await under_way(elsewhere)))
    await asyncio.sleep(0.002)
    await world.services.drain(0)
    for _ in range(steps):
        await asyncio.sleep(0)

    world.replies.close()

    with pytest.raises(ShuttingDown):
        await following


async def test_a_drain_while_a_reply_finishes_hears_it_out(world: World, anna: User) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event(), " and half")
    following = asyncio.create_task(stream(world, turn))
    await asyncio.sleep(0)
    draining = asyncio.create_task(world.services.drain(PATIENCE))
    await asyncio.sleep(0)
    go_on.set()
    await draining

    assert kinds(await following) == [(1, "Delta"), (2, "Delta"), (3, "Ended")]


# --- Ends -----------------------------------------------------------------------------------------------------------


async def test_a_stream_ends_with_the_first_end_even_if_more_has_come_since(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that failed may have been begun again before its follower came to read."""
    world.vendor.script = plays("half", LlmUnavailable())
    turn = await world.ask(anna)
    attempt = [Numbered(1, Delta("half")), Numbered(2, ended(turn))]

    async def both(*_: object) -> list[Numbered]:
        return [*attempt, Numbered(1_000_001, Replace("", "restarted")), Numbered(1_000_002, Delta("whole"))]

    monkeypatch.setattr(world.feed, "read", both)

    assert await stream(world, turn) == attempt


# --- Readers who do not read ----------------------------------------------------------------------------------------


async def test_a_reader_that_never_reads_holds_up_nobody_and_is_given_one_piece_when_it_does(
    world: World, anna: User
) -> None:
    turn = await under_way(world, "first", go_on := asyncio.Event(), *["字"] * 5000)
    _, lazy = await world.replies.follow(anna, turn.reply.id, 0)
    assert kinds(await anext(lazy)) == [(1, "Delta")]
    go_on.set()

    whole = await world.end_of(turn)

    assert whole.reply.content == "first" + "字" * 5000
    assert kinds(await stream(world, turn, 5000)) == [(5001, "Delta"), (5002, "Ended")]
    assert kinds(await anext(lazy)) == [(5001, "Replace"), (5002, "Ended")]
    with pytest.raises(StopAsyncIteration):
        await anext(lazy)


async def test_a_follower_who_leaves_in_the_middle_leaves_nothing_behind(world: World, anna: User) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event())
    for _ in range(50):
        client = Client(anna, turn.reply.id)
        await client.comes(world)
        await asyncio.sleep(0)
        await client.leaves()

    assert not world.feed._logs[turn.reply.id].waiters
    go_on.set()
    assert (await world.end_of(turn)).reply.content == "half"
