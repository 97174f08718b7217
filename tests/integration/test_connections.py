"""Connections are lent from unit to unit, and none on which anything went wrong is lent again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL, bindparam, func, literal, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence import connections
from chatassist.adapters.persistence.connections import Connections
from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.prepared import Prepared, say
from chatassist.adapters.persistence.tables import USERS
from tests.integration.storing import connected

SAY = Prepared(select(literal("mine"), bindparam("word", type_=USERS.c.id.type)))
SLEEP = Prepared(select(func.sleep(bindparam("seconds", type_=USERS.c.blocked.type)), literal("late")))


@asynccontextmanager
async def opened(url: URL, *, size: int = 2) -> AsyncIterator[Connections]:
    lent = Connections(open_engine(url, pool_size=size))
    try:
        yield lent
    finally:
        await lent.aclose()


async def number_of(db: AsyncConnection) -> int:
    return int((await db.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one())


async def lent_number(lent: Connections) -> int:
    async with lent.one() as db:
        return await number_of(db)


async def test_the_next_unit_gets_the_same_connection_and_two_at_a_time_get_two(mysql: URL) -> None:
    async with opened(mysql) as lent:
        async with lent.one() as first, lent.one() as second:
            numbers = {await number_of(first), await number_of(second)}
        assert len(numbers) == 2
        assert await lent_number(lent) in numbers
        async with lent.one() as first, lent.one() as second:
            assert {await number_of(first), await number_of(second)} == numbers


async def test_a_cancelled_statement_never_hands_its_answer_to_the_next_unit(mysql: URL) -> None:
    async with opened(mysql, size=1) as lent:
        before = await lent_number(lent)

        async def sleep() -> None:
            async with lent.one() as db:
                await SLEEP.rows(db, {"seconds": 1})

        sleeping = asyncio.create_task(sleep())
        await asyncio.sleep(0.1)  # so that it is under way: an answer would come after the cancellation
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping

        async with lent.one() as db:
            assert await number_of(db) != before
            for word in ("one", "two", "three"):
                assert [list(row) for row in await SAY.rows(db, {"word": word})] == [["mine", word]]


async def test_statements_cut_off_at_any_moment_leave_no_answer_behind(mysql: URL) -> None:
    async with opened(mysql, size=1) as lent:

        async def ask(word: str) -> str:
            async with lent.one() as db:
                return str((await SAY.rows(db, {"word": word}))[0][1])

        for round_ in range(60):
            asking = asyncio.create_task(ask("cut off"))
            for _ in range(round_ % 6):
                await asyncio.sleep(0)
            if round_ % 3 == 0:
                await asyncio.sleep(0.0002 * (round_ % 7))
            asking.cancel()
            await asyncio.wait({asking})
            assert await ask(f"{round_}") == f"{round_}"


async def test_once_one_is_lost_the_idle_ones_are_not_lent_either(mysql: URL) -> None:
    async with opened(mysql) as lent, connected(mysql) as admin:
        async with lent.one() as first, lent.one() as second:
            numbers = [await number_of(first), await number_of(second)]
        for number in numbers:
            await say(admin, f"KILL {number}")
        with pytest.raises(OperationalError):
            await lent_number(lent)

        assert await lent_number(lent) not in numbers


async def test_a_failed_unit_gives_its_connection_back_to_the_pool(mysql: URL) -> None:
    async with opened(mysql, size=1) as lent:
        with pytest.raises(LookupError):
            async with lent.one():
                raise LookupError
        assert lent._engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_none_is_kept_from_the_pool_for_long(mysql: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEPT_SECONDS", 0.05)
    async with opened(mysql, size=1) as lent:
        first = await lent_number(lent)
        lent._engine.pool._recycle = 0  # it renews whatever it lends
        assert await lent_number(lent) == first
        await asyncio.sleep(0.1)
        assert await lent_number(lent) != first


async def test_what_comes_back_after_the_end_is_closed(mysql: URL) -> None:
    async with opened(mysql, size=1) as lent:
        async with lent.one() as db:
            number = await number_of(db)
            await lent.aclose()
        async with connected(mysql) as admin:
            alive = (await admin.exec_driver_sql("SELECT id FROM information_schema.processlist")).scalars().all()
        assert number not in alive
