"""The lease: by what others judge whether this process still runs its replies."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chatassist.domain.errors import CommitUnknown, StoreUnavailable
from chatassist.domain.replies.lease import RENEW_SECONDS, VALID_SECONDS
from tests.unit.worlds import Fault, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def believed(world: World, instance_id: str) -> bool:
    """Whether others believe that this instance is alive."""
    return await world.store.inner.read(lambda tx: tx.instances.is_alive(instance_id, world.clock()))


async def test_a_process_is_not_alive_before_it_says_so(world: World) -> None:
    assert not world.lease.held

    instance = await world.lease.ensure()

    assert world.lease.held
    assert await believed(world, instance)


async def test_its_id_holds_and_is_not_stored_again_while_it_lasts(world: World) -> None:
    instance = await world.lease.ensure()
    written = world.store.written
    world.clock.advance(VALID_SECONDS - 0.001)

    assert await world.lease.ensure() == instance
    assert world.store.written == written


async def test_renewing_in_time_keeps_the_id_for_as_long_as_one_likes(world: World) -> None:
    instance = await world.lease.ensure()
    for _ in range(10):
        world.clock.advance(RENEW_SECONDS)
        await world.lease.renew()
    world.clock.advance(VALID_SECONDS - 0.001)

    assert world.lease.held
    assert await believed(world, instance)
    assert await world.lease.ensure() == instance


async def test_both_sides_agree_to_the_moment_when_it_lapses(world: World) -> None:
    instance = await world.lease.ensure()

    world.clock.advance(VALID_SECONDS)

    assert not world.lease.held
    assert not await believed(world, instance)


async def test_an_id_that_lapsed_is_never_used_again(world: World) -> None:
    ids = []
    for _ in range(3):
        ids.append(await world.lease.ensure())
        world.clock.advance(VALID_SECONDS)
        await world.lease.renew()
        ids.append(await world.lease.ensure())
        world.clock.advance(VALID_SECONDS)

    assert len(set(ids)) == 6
    assert not any([await believed(world, instance) for instance in ids])


async def test_it_vouches_only_for_the_id_that_others_still_believe(world: World) -> None:
    first = await world.lease.ensure()
    assert world.lease.vouches_for(first)

    world.clock.advance(VALID_SECONDS)
    assert not world.lease.vouches_for(first)

    second = await world.lease.ensure()
    assert world.lease.vouches_for(second)
    assert not world.lease.vouches_for(first)


async def test_one_that_could_not_be_renewed_lapses_in_its_time(world: World) -> None:
    instance = await world.lease.ensure()
    world.store.away = True
    world.clock.advance(VALID_SECONDS - 1)
    with pytest.raises(StoreUnavailable):
        await world.lease.renew()
    assert await world.lease.ensure() == instance

    world.clock.advance(1)

    assert not world.lease.held
    with pytest.raises(StoreUnavailable):
        await world.lease.ensure()


async def test_it_believes_itself_no_longer_than_others_do_when_a_commit_is_not_heard_of(world: World) -> None:
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)
    with pytest.raises(CommitUnknown):
        await world.lease.ensure()

    assert not world.lease.held


async def test_claims_at_once_share_one_id_and_one_write(world: World) -> None:
    ids = await asyncio.gather(*(world.lease.ensure() for _ in range(10)))

    assert len(set(ids)) == 1
    assert world.store.written == 1


async def test_releasing_gives_the_id_up_at_once(world: World) -> None:
    instance = await world.lease.ensure()

    await world.lease.release()

    assert not world.lease.held
    assert not await believed(world, instance)
    assert await world.lease.ensure() != instance


async def test_releasing_what_was_never_held_writes_nothing(world: World) -> None:
    await world.lease.release()

    assert world.store.written == 0


async def test_what_was_read_is_secured_by_one_write_for_all_that_began_after_they_asked(world: World) -> None:
    await world.lease.ensure()
    written, door = world.store.written, asyncio.Event()
    world.store.closed_door = door
    begun_before = asyncio.create_task(world.lease.renew())
    await asyncio.sleep(0)
    securing = [asyncio.create_task(world.lease.secure()) for _ in range(5)]
    await asyncio.sleep(0)

    door.set()
    await asyncio.gather(begun_before, *securing)

    assert world.store.written - written == 2


async def test_a_write_that_failed_secures_nothing_for_those_who_waited_for_it(world: World) -> None:
    await world.lease.ensure()
    written, door = world.store.written, asyncio.Event()
    world.store.closed_door = door
    world.store.faults.append(Fault.AWAY)
    securing = [asyncio.create_task(world.lease.secure()) for _ in range(3)]
    await asyncio.sleep(0)

    door.set()
    outcomes = await asyncio.gather(*securing, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, type(None), type(None)]
    assert world.store.written - written == 1
