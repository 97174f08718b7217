"""Texts saved while they grow, replies given up that others ended, and attempts that outlive their owner's lease."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.domain.errors import LlmUnavailable, StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.replies import Delta, Ended, Replace
from chatassist.domain.replies.claims import Accepted, Claim
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import End, FinishReason, Status, Turn
from tests.unit.worlds import Fault, World, until

KEY = "key-1"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[World]:
    """Another process on the same database."""
    async with World(beside=world, script=plays("anew")) as elsewhere:
        yield elsewhere


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


async def under_way(world: World, *steps: Step, key: str | None = None) -> Turn:
    """A turn whose reply has come as far as its steps go; it ends when told to."""
    before = world.vendor.speaking
    world.vendor.script = plays(*steps or ("half", asyncio.Event()))
    turn = (await world.send(await world.somebody("anna"), key=key)).turn
    await until(lambda: world.vendor.speaking > before)
    await asyncio.sleep(0)
    return turn


async def stored(world: World, turn: Turn) -> tuple[str, str, str, int]:
    kept = await world.kept(turn)
    assert kept
    return kept.reply.status, kept.reply.content, kept.reply.thinking, kept.reply.seq


# --- Saves ----------------------------------------------------------------------------------------------------------


async def test_texts_that_grew_are_saved_with_the_number_that_they_reach(world: World) -> None:
    turn = await under_way(world, "one ", Chunk(thinking="hm"), Chunk(text="two", thinking="!"), asyncio.Event())
    assert await stored(world, turn) == ("running", "", "", 0)

    await world.engine.save()

    assert await stored(world, turn) == ("running", "one two", "hm!", 4)


async def test_all_of_them_cost_one_unit_and_none_when_nothing_grew(world: World) -> None:
    for _ in range(20):
        await under_way(world, "half", asyncio.Event())
    silent = await under_way(world, asyncio.Event())
    saved: list[int] = []
    world.store.inner = _Counting(world, saved)  # type: ignore[assignment]

    await world.engine.save()
    await world.engine.save()

    assert saved == [20]
    assert await stored(world, silent) == ("running", "", "", 0)


class _Counting:
    """The store, but for how many texts every save has."""

    def __init__(self, world: World, saved: list[int]) -> None:
        self._inner = world.store.inner
        self._saved = saved

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def write(self, work: Callable[[Transaction], Awaitable[object]]) -> object:
        async def watched(tx: Transaction) -> object:
            save = tx.replies.save

            async def counted(texts: list[object]) -> None:
                self._saved.append(len(texts))
                await save(texts)  # type: ignore[arg-type]

            tx.replies.save = counted  # type: ignore[method-assign, assignment]
            return await work(tx)

        return await self._inner.write(watched)


async def test_only_what_grew_since_the_last_save_is_saved_again(world: World) -> None:
    go_on = asyncio.Event()
    await under_way(world)
    growing = await under_way(world, "half", go_on, " and half", asyncio.Event())
    await world.engine.save()
    go_on.set()
    await asyncio.sleep(0.001)
    saved: list[int] = []
    world.store.inner = _Counting(world, saved)  # type: ignore[assignment]

    await world.engine.save()

    assert saved == [1]
    assert await stored(world, growing) == ("running", "half and half", "", 2)


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT, Fault.DEFECT])
async def test_a_save_that_fails_is_no_failure_of_the_reply_and_is_made_good_by_the_next(
    world: World, fault: Fault
) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event())
    world.store.faults.append(fault)

    await asyncio.gather(world.engine.save(), return_exceptions=True)
    await world.engine.save()

    assert await stored(world, turn) == ("running", "half", "", 1)
    go_on.set()
    assert (await world.end_of(turn)).reply.status is Status.COMPLETE


async def test_a_save_tells_when_the_database_is_away(world: World) -> None:
    await under_way(world)
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await world.engine.save()


async def test_a_save_that_comes_after_the_end_changes_nothing(world: World) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event(), " and half")
    door = world.store.closed_door = asyncio.Event()
    saving = asyncio.create_task(world.engine.save())
    await asyncio.sleep(0)
    world.store.closed_door = None
    go_on.set()
    ended = await world.end_of(turn)

    door.set()
    await saving

    assert await world.kept(turn) == ended


async def test_what_is_ending_is_not_saved_any_more(world: World) -> None:
    turn = await under_way(world, "some", go_on := asyncio.Event(), Chunk(finish_reason=FinishReason.BLOCKED))
    door = world.store.closed_door = asyncio.Event()
    go_on.set()
    await until(lambda: not world.vendor.speaking)
    world.store.closed_door = None

    await world.engine.save()

    assert (await stored(world, turn))[1] == ""
    door.set()
    assert (await world.end_of(turn)).reply.finish_reason is FinishReason.BLOCKED


async def test_after_a_crash_the_text_last_saved_is_there(world: World, elsewhere: World, anna: User) -> None:
    turn = await under_way(world, "half", Chunk(thinking="hm"), asyncio.Event())
    await world.engine.save()
    world.clock.advance(VALID_SECONDS)

    seen = (await elsewhere.get(anna, turn.reply.id)).reply

    assert (seen.status, seen.reason, seen.content, seen.thinking) == ("failed", "reply_interrupted", "half", "hm")
    assert seen.seq == 1_000_000


# --- Giving up what others ended ------------------------------------------------------------------------------------


async def test_a_process_gives_up_what_somebody_else_ended_and_nothing_else(
    world: World, elsewhere: World, anna: User
) -> None:
    theirs, ours = await under_way(world), await under_way(world)
    following = asyncio.create_task(world.events(theirs))
    kept = await world.kept(theirs)
    assert kept
    ended = await elsewhere.ends.from_outside(kept, End.stop(world.clock()))

    await world.engine.look_for_stopped()

    assert [type(event) for event in await following] == [Delta, Replace, Ended]
    assert world.vendor.speaking == 1
    assert await world.kept(theirs) == ended
    assert (await stored(world, ours))[0] == "running"


async def test_looking_costs_nothing_while_nothing_is_made(world: World, anna: User) -> None:
    await world.ask(anna)
    world.store.away = True

    await world.engine.look_for_stopped()


async def test_replies_under_a_new_id_are_not_given_up_for_one_under_an_old_id_that_begins_last(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim was in doubt while the lease lapsed, so it begins after those that were claimed later."""
    find, go_on = Claim.find, asyncio.Event()

    async def find_late(claim: Claim, instance_id: str) -> Accepted | None:
        await go_on.wait()
        return await find(claim, instance_id)

    monkeypatch.setattr(Claim, "find", find_late)
    await world.lease.ensure()
    world.vendor.script = plays("half", asyncio.Event())
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)
    sending = asyncio.create_task(world.send(anna))
    await until(lambda: not world.store.faults)
    world.clock.advance(VALID_SECONDS)
    new = await under_way(world)  # renews the lease by itself
    go_on.set()
    old = (await sending).turn
    await until(lambda: world.vendor.speaking == 2)
    assert old.reply.instance_id != new.reply.instance_id

    await world.engine.look_for_stopped()
    await asyncio.sleep(0.001)

    assert (await stored(world, new))[0] == "running"
    assert world.vendor.speaking == 2
    await world.follower.stored(old.reply.id, anna.id)  # somebody sees that it is orphaned
    await world.engine.look_for_stopped()
    await until(lambda: world.vendor.speaking == 1)
    assert (await stored(world, new))[0] == "running"


# --- A process that slept -------------------------------------------------------------------------------------------


async def test_a_reply_whose_process_slept_is_begun_again_elsewhere_and_the_sleeper_changes_nothing(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event(), " and half", key=KEY)
    following = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)
    world.clock.advance(VALID_SECONDS)  # it sleeps

    again = await elsewhere.ask(anna, key=KEY)

    assert (again.reply.id, again.reply.attempt, again.reply.content) == (turn.reply.id, 1, "anew")
    await world.engine.save()
    go_on.set()  # it wakes, and finishes as if nothing had been
    ended = (await following)[-1]
    assert isinstance(ended, Ended)
    assert (ended.end.reason, ended.end.seq) == ("reply_interrupted", 1_000_000)
    await world.engine.save()
    assert await world.kept(turn) == again
    assert (await world.send(anna, key=KEY)).turn == again
    assert len(world.vendor.prompts) == len(elsewhere.vendor.prompts) == 1


async def test_a_process_that_slept_shows_what_is_stored_of_a_later_attempt(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world, "half", asyncio.Event(), key=KEY)
    world.clock.advance(VALID_SECONDS)
    await under_way(elsewhere, "anew", asyncio.Event(), key=KEY)
    await elsewhere.engine.save()

    seen = await world.get(anna, turn.reply.id)

    assert (seen.reply.attempt, seen.reply.status, seen.reply.content) == (1, "running", "anew")


async def test_a_sleeper_that_wakes_before_anybody_noticed_finishes_its_reply(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world, "half", go_on := asyncio.Event(), " and half", key=KEY)
    world.clock.advance(VALID_SECONDS)
    go_on.set()

    assert (await world.end_of(turn)).reply.content == "half and half"
    assert (await elsewhere.send(anna, key=KEY)).replayed


async def test_a_reply_that_lapsed_is_begun_again_in_the_process_that_still_makes_it(world: World, anna: User) -> None:
    """Two attempts of one reply in one process: the second waits for the end of the first."""
    turn = await under_way(world, key=KEY)
    first = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)
    world.clock.advance(VALID_SECONDS)
    world.vendor.script = plays("whole")

    again = await world.ask(anna, key=KEY)

    assert (again.reply.attempt, again.reply.content, again.reply.seq) == (1, "whole", 1_000_003)
    assert await world.kept(turn) == again
    assert world.vendor.speaking == 0
    assert isinstance((await first)[-1], Ended)
    assert await world.events(again) == [Replace("", "restarted"), Delta("whole"), Ended(again.reply.end)]  # type: ignore[arg-type]


async def test_a_failed_attempt_that_is_being_stored_is_waited_for(world: World, anna: User) -> None:
    """Its end is stored but not told yet when the next attempt is asked for."""
    world.vendor.script = plays("half", LlmUnavailable())
    told, going_on = asyncio.Event(), asyncio.Event()

    async def at_end(*_: object) -> None:
        world.feed.at_end = None
        told.set()
        await going_on.wait()

    world.feed.at_end = at_end
    turn = (await world.send(anna, key=KEY)).turn
    await told.wait()
    world.vendor.script = plays("whole")
    again = asyncio.create_task(world.send(anna, key=KEY))
    await asyncio.sleep(0.001)
    assert not again.done()

    going_on.set()

    ended = await world.end_of((await again).turn)
    assert (ended.reply.id, ended.reply.attempt, ended.reply.content) == (turn.reply.id, 1, "whole")
    assert (await world.events(ended))[0] == Replace("", "restarted")


async def test_a_restart_in_doubt_is_not_taken_for_that_of_another_process(
    world: World, elsewhere: World, anna: User
) -> None:
    world.vendor.script = plays(LlmUnavailable())
    failed = await world.ask(anna, key=KEY)
    claim = await world.messages._claims.restart(anna, failed)
    assert await claim.find(await world.lease.ensure()) is None
    elsewhere.vendor.script = plays("anew", asyncio.Event())
    await elsewhere.send(anna, key=KEY)

    assert await claim.find(await world.lease.ensure()) is None
    assert await claim.find(await elsewhere.lease.ensure())


@pytest.mark.parametrize("fault", [Fault.LOST_AFTER_COMMIT, Fault.LOST_BEFORE_COMMIT, Fault.AWAY])
async def test_a_restart_in_doubt_happens_once_or_not_at_all(world: World, anna: User, fault: Fault) -> None:
    world.vendor.script = plays(LlmUnavailable())
    failed = await world.ask(anna, key=KEY)
    world.vendor.script = plays("whole")
    world.store.faults.append(fault)

    if fault is Fault.LOST_AFTER_COMMIT:
        assert not (await world.send(anna, key=KEY)).replayed
    else:
        with pytest.raises(StoreUnavailable):
            await world.send(anna, key=KEY)

    again = await world.ask(anna, key=KEY)
    assert (again.reply.id, again.reply.attempt, again.reply.content) == (failed.reply.id, 1, "whole")
    assert len(world.vendor.prompts) == 2


@pytest.mark.parametrize("steps", range(14))
async def test_who_goes_away_at_any_moment_of_a_restart_leaves_one_that_is_finished_or_none(
    world: World, anna: User, steps: int
) -> None:
    world.vendor.script = plays(LlmUnavailable())
    await world.ask(anna, key=KEY)
    world.vendor.script = plays("whole")
    sending = asyncio.create_task(world.send(anna, key=KEY))
    for _ in range(steps):
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    again = await world.ask(anna, key=KEY)

    assert (again.reply.attempt, again.reply.content) == (1, "whole")
    assert len(world.vendor.prompts) == 2
