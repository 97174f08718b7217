"""A database that shows what is committed before it is on disk: what is said of it has to outlast a crash."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields, replace
from typing import TypeVar

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.errors import CommitUnknown
from chatassist.domain.model import Preferences, User
from chatassist.domain.ports.erasing import Deletion
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.replies import Ended, Event
from chatassist.domain.replies.follow import FRESH
from chatassist.domain.turns import End, Status, Turn
from tests.unit.worlds import PATIENCE, World, until

T = TypeVar("T")
Seen = Callable[[Tables], bool]

KEY = "key-1"


class LoggingStore(MemoryStore):
    """Its log is written as InnoDB's is: everybody sees a unit before it is on disk, and with it all before it.

    The unit after which `slow` is first true is seen, and not written; whoever waits for that is let down at a `crash`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slow: Seen | None = None
        self.on_disk = Tables()
        self.crashed = asyncio.Event()

    @property
    def seen(self) -> Tables:
        return self._tables

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        before = _copied(self._tables)
        result = await super().write(work)
        if self.slow and self.slow(self._tables):
            self.slow = None
            await self.crashed.wait()
            raise CommitUnknown
        if self._tables != before:  # what changes nothing writes nothing
            self.on_disk = _copied(self._tables)
        return result

    def crash(self) -> None:
        """Start again with what is on disk."""
        self._tables = _copied(self.on_disk)
        self.crashed.set()


def _copied(tables: Tables) -> Tables:
    return Tables(**{table.name: dict(getattr(tables, table.name)) for table in fields(tables)})


@pytest.fixture
def database() -> LoggingStore:
    return LoggingStore()


@pytest.fixture
async def world(database: LoggingStore) -> AsyncIterator[World]:
    async with World() as world:
        world.store.inner = database
        await world.lease.ensure()
        world.clock.advance(1)
        yield world
        database.crashed.set()


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[World]:
    """Another process on the same database."""
    async with World(beside=world) as elsewhere:
        await elsewhere.lease.ensure()
        world.clock.advance(1)
        yield elsewhere


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


def is_accepted(tables: Tables) -> bool:
    return bool(tables.turns)


def has_ended(tables: Tables) -> bool:
    return any(turn.reply.status is not Status.RUNNING for turn in tables.turns.values())


# --- Accepted -------------------------------------------------------------------------------------------------------


async def test_the_turn_that_a_repeated_send_finds_outlasts_a_crash(
    world: World, elsewhere: World, anna: User, database: LoggingStore
) -> None:
    database.slow = is_accepted
    first = asyncio.create_task(world.send(anna, key=KEY))
    await until(lambda: is_accepted(database.seen))

    repeated = await elsewhere.send(anna, key=KEY)
    database.crash()

    assert repeated.replayed
    assert await world.kept(repeated.turn) == repeated.turn
    assert (await first).turn.reply.id == repeated.turn.reply.id
    assert len(world.vendor.prompts) == 1


async def test_the_version_that_a_repeated_wish_finds_outlasts_a_crash(
    world: World, elsewhere: World, anna: User, database: LoggingStore
) -> None:
    turn = await world.ask(anna)
    database.slow = lambda tables: len(tables.turns) == 2
    first = asyncio.create_task(world.messages.regenerate(anna, turn.reply.id, key=KEY))
    await until(lambda: len(database.seen.turns) == 2)

    repeated = await elsewhere.messages.regenerate(anna, turn.reply.id, key=KEY)
    database.crash()

    assert await world.kept(repeated.turn) == repeated.turn
    assert (await first).turn.reply.id == repeated.turn.reply.id


async def test_a_claim_of_which_nobody_heard_is_on_disk_before_its_model_is_asked(
    world: World, anna: User, database: LoggingStore
) -> None:
    database.slow = is_accepted
    database.crashed.set()  # only the connection was lost
    asked: list[bool] = []
    world.vendor.while_speaking = lambda: asked.append(is_accepted(database.on_disk))

    await world.ask(anna)

    assert asked
    assert all(asked)


# --- Ended ----------------------------------------------------------------------------------------------------------


async def shown(world: World, user: User, turn: Turn) -> object:
    return (await world.replies.get(user, turn.reply.id)).turn.reply.status


async def waited_for(world: World, user: User, turn: Turn) -> object:
    return (await world.messages.settle(turn, PATIENCE)).reply.status


async def stopped(world: World, user: User, turn: Turn) -> object:
    return (await world.replies.stop(user, turn.reply.id)).turn.reply.status


async def stopped_in_its_owners_place(world: World, _: User, turn: Turn) -> object:
    return (await world.ends.from_outside(turn, End.stop(world.clock()))).reply.status


async def resumed(world: World, user: User, turn: Turn) -> object:
    _, events = await world.replies.follow(user, turn.reply.id, 0)
    last = [numbered.event async for batch in events for numbered in batch][-1]
    return last.end.status if isinstance(last, Ended) else last


async def sent_again(world: World, user: User, _: Turn) -> object:
    return (await world.send(user, key=KEY)).turn.reply.status


@pytest.mark.parametrize(
    "told",
    [shown, waited_for, stopped, stopped_in_its_owners_place, resumed, sent_again],
    ids=lambda told: told.__name__,
)
async def test_an_end_that_is_told_elsewhere_is_on_disk(
    world: World,
    elsewhere: World,
    anna: User,
    database: LoggingStore,
    told: Callable[[World, User, Turn], Awaitable[object]],
) -> None:
    turn = (await world.send(anna, key=KEY)).turn
    database.slow = has_ended
    await until(lambda: has_ended(database.seen))
    assert not has_ended(database.on_disk)

    assert await told(elsewhere, anna, turn) == "complete"

    assert has_ended(database.on_disk)


async def test_an_end_of_which_nobody_heard_is_on_disk_before_it_is_told(
    world: World, anna: User, database: LoggingStore
) -> None:
    database.slow = has_ended
    database.crashed.set()  # only the connection was lost
    told: list[bool] = []

    async def look(_: str, __: Event) -> None:
        told.append(has_ended(database.on_disk))

    world.feed.at_end = look
    await world.ask(anna)

    assert told == [True]


# --- Deleted --------------------------------------------------------------------------------------------------------


def is_deleted(tables: Tables) -> bool:
    return bool(tables.deletions)


@pytest.mark.parametrize("everything", [False, True])
async def test_a_deletion_that_is_found_is_on_disk(
    world: World, elsewhere: World, anna: User, database: LoggingStore, everything: bool
) -> None:
    def delete(world: World) -> Awaitable[Deletion | None]:
        return world.deletions.clear(anna) if everything else world.deletions.delete(anna, session_id)

    session_id = (await world.ask(anna)).message.session_id
    database.slow = is_deleted
    first = asyncio.ensure_future(delete(world))
    await until(lambda: is_deleted(database.seen))

    found = await delete(elsewhere)
    database.crash()

    assert found
    assert is_deleted(database.seen)
    assert await first == found


# --- What it costs --------------------------------------------------------------------------------------------------


async def test_what_is_long_since_on_disk_is_told_without_a_write(world: World, elsewhere: World, anna: User) -> None:
    turn = await world.ask(anna, key=KEY)
    world.clock.advance(FRESH.total_seconds())
    written = elsewhere.store.written

    for told in (shown, waited_for, stopped, resumed, sent_again):
        assert await told(elsewhere, anna, turn) == "complete"

    assert elsewhere.store.written == written


async def test_what_is_not_to_be_kept_costs_the_database_nothing(world: World, anna: User) -> None:
    private = replace(anna, preferences=Preferences(save_history=False))
    turn = await world.ask(private, key=KEY)
    written = world.store.written

    for told in (shown, stopped, resumed, sent_again):
        assert await told(world, private, turn) == "complete"

    assert world.store.written == written


async def test_many_who_ask_at_once_share_a_write(world: World, elsewhere: World, anna: User) -> None:
    world.vendor.script = plays(asyncio.Event())
    await world.send(anna, key=KEY)
    written = elsewhere.store.written

    keys = [f"other-{number}" for number in range(20)]
    turns = [await world.send(anna, key=key) for key in keys]
    await asyncio.gather(*(elsewhere.send(anna, key=key) for key in keys))

    assert len(turns) == 20
    assert elsewhere.store.written - written <= 2
