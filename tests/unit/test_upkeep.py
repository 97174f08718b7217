"""What keeps replies and logins tidy: the rule of orphans, and jobs that survive their failures."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.model import Login, User
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import Status, Turn
from chatassist.domain.upkeep import FORGET_INSTANCES, Job, repeat
from tests.builders import a_login, a_session, a_turn, an_end
from tests.unit.worlds import World, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


async def left_running(world: World, user: User, instance_id: str) -> Turn:
    """A running reply of some process."""
    session = a_session(user)
    turn = a_turn(session, instance_id=instance_id, content="so far")

    async def work(tx: Transaction) -> None:
        await tx.sessions.add(session)
        await tx.turns.add(turn)

    await world.store.write(work)
    return turn


async def a_process(world: World, lives: float) -> str:
    """The id of another process that is believed alive for so many seconds."""
    instance = world.ids()
    until = world.clock() + timedelta(seconds=lives)
    await world.store.write(lambda tx: tx.instances.renew(instance, until))
    return instance


# --- Orphans --------------------------------------------------------------------------------------------------------


async def test_a_reader_sees_an_orphan_as_interrupted_and_says_so_for_good(world: World, anna: User) -> None:
    orphan = await left_running(world, anna, await a_process(world, lives=0))

    seen = await world.get(anna, orphan.reply.id)

    assert (seen.reply.status, seen.reply.reason, seen.reply.content) == (
        Status.FAILED,
        "reply_interrupted",
        "so far",
    )
    assert await world.kept(orphan) == seen


async def test_a_reply_of_a_process_that_nobody_knows_is_an_orphan(world: World, anna: User) -> None:
    orphan = await left_running(world, anna, "never heard of")

    assert (await world.get(anna, orphan.reply.id)).reply.reason == "reply_interrupted"


async def test_a_reply_of_a_living_process_is_left_alone(world: World, anna: User) -> None:
    turn = await left_running(world, anna, await a_process(world, lives=0.001))

    assert (await world.get(anna, turn.reply.id)) == turn
    await world.upkeep.reap()
    assert await world.kept(turn) == turn


async def test_the_first_reader_writes_and_the_others_see_what_it_wrote(world: World, anna: User) -> None:
    orphan = await left_running(world, anna, "vanished")

    seen = await asyncio.gather(*(world.get(anna, orphan.reply.id) for _ in range(5)))

    assert all(turn == seen[0] for turn in seen)
    assert seen[0] == await world.kept(orphan)


async def test_a_reader_who_comes_second_to_the_owner_tells_the_owners_end(world: World, anna: User) -> None:
    orphan = await left_running(world, anna, "thought dead")
    end = an_end("the whole answer", seq=2)
    world.store.closed_door = asyncio.Event()
    reading = asyncio.create_task(world.follower.stored(orphan.reply.id, anna.id))
    await asyncio.sleep(0)

    await world.store.inner.write(lambda tx: tx.replies.finish(orphan.reply.id, 0, end))
    world.store.closed_door.set()

    assert (await reading).reply.end == end


async def test_a_repeated_send_finds_its_orphan_interrupted_and_begins_it_again(world: World, anna: User) -> None:
    async with World(beside=world, script=plays(asyncio.Event())) as crashed:
        lost = (await crashed.send(anna, key="k")).turn
        world.clock.advance(VALID_SECONDS)

        sent = await world.send(anna, key="k")

        assert (sent.replayed, sent.turn.reply.id, sent.turn.reply.attempt) == (False, lost.reply.id, 1)
        assert (await world.end_of(sent.turn)).reply.content == "an answer"


async def test_reaping_ends_all_orphans_and_nothing_else(world: World, anna: User) -> None:
    alive, dead = await a_process(world, lives=1), await a_process(world, lives=0)
    orphans = [await left_running(world, anna, instance) for instance in (dead, dead, "unknown")]
    living = await left_running(world, anna, alive)
    done = await world.ask(anna)

    await world.upkeep.reap()
    await world.upkeep.reap()  # nothing is left to do

    for orphan in orphans:
        kept = await world.kept(orphan)
        assert kept
        assert (kept.reply.reason, kept.reply.content) == ("reply_interrupted", "so far")
    assert await world.kept(living) == living
    assert await world.kept(done) == done


async def test_released_replies_are_orphans_at_once(world: World, anna: User) -> None:
    turn = await left_running(world, anna, await world.lease.ensure())

    await world.lease.release()

    assert (await world.get(anna, turn.reply.id)).reply.reason == "reply_interrupted"


# --- Purging --------------------------------------------------------------------------------------------------------


async def test_purging_drops_every_expired_login_and_no_other(world: World, anna: User) -> None:
    now = world.clock()
    expired = [a_login(anna, expires_at=now - timedelta(seconds=1)) for _ in range(2001)]
    current = a_login(anna, expires_at=now)

    async def work(tx: Transaction) -> None:
        for login in (*expired, current):
            await tx.logins.add(login)

    await world.store.write(work)

    await world.upkeep.purge()

    async def look(tx: Transaction) -> list[Login]:
        found = [await tx.logins.find(login.id) for login in (*expired, current)]
        return [login for login, _ in filter(None, found)]

    assert await world.store.read(look) == [current]


async def test_purging_drops_processes_that_are_long_gone_and_keeps_the_lately_gone(world: World) -> None:
    await a_process(world, lives=0)
    world.clock.advance(FORGET_INSTANCES.total_seconds())
    await world.upkeep.purge()
    assert await world.store.write(lambda tx: tx.instances.purge(world.clock())) == 1

    await a_process(world, lives=0)
    world.clock.advance(FORGET_INSTANCES.total_seconds() + VALID_SECONDS + 1)  # our own lease goes too
    await world.upkeep.purge()
    assert await world.store.write(lambda tx: tx.instances.purge(world.clock())) == 0


# --- Jobs -----------------------------------------------------------------------------------------------------------


async def test_a_job_that_fails_is_tried_again_and_holds_up_no_other() -> None:
    failures = iter([StoreUnavailable(), RuntimeError("a defect"), TimeoutError()])
    done = {"flaky": 0, "steady": 0}

    async def flaky() -> None:
        for failure in failures:
            raise failure
        done["flaky"] += 1

    async def steady() -> None:
        done["steady"] += 1

    running = asyncio.create_task(
        repeat([Job(name="flaky", seconds=0, run=flaky), Job(name="steady", seconds=0, run=steady)])
    )
    await until(lambda: min(done.values()) >= 3)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    count = dict(done)
    await asyncio.sleep(0.001)
    assert done == count  # nothing goes on behind our back


async def test_a_job_has_its_rhythm() -> None:
    ran = 0

    async def run() -> None:
        nonlocal ran
        ran += 1

    running = asyncio.create_task(repeat([Job(name="rare", seconds=3600, run=run)]))
    await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert ran == 1


async def test_the_jobs_of_a_process_keep_it_alive_end_orphans_and_purge(world: World, anna: User) -> None:
    orphan = await left_running(world, anna, "vanished")
    running = asyncio.create_task(repeat(world.upkeep.jobs()))

    await until(lambda: world.store.written >= 5)  # user, orphan, lease, reaping, purging
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert world.lease.held
    kept = await world.kept(orphan)
    assert kept
    assert kept.reply.reason == "reply_interrupted"
    renewal = world.upkeep.jobs()[0]
    assert renewal.name == "renew lease"
    assert renewal.seconds * 2 < VALID_SECONDS  # one failure is survived
