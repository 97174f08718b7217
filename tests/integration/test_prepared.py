"""Prepared statements do what the same statements of Core do, on every driver."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import URL, bindparam, func, insert, literal, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.failures import is_duplicate, is_lost
from chatassist.adapters.persistence.mapping import turn_values, user_values
from chatassist.adapters.persistence.prepared import Prepared, say
from chatassist.adapters.persistence.tables import MESSAGES, USERS
from tests.builders import NOW, a_session, a_turn, a_user

ALL = select(USERS).where(USERS.c.openid == bindparam("openid"))
TURN = select(MESSAGES).order_by(MESSAGES.c.version)


@pytest.fixture(params=["sqlite", "mysql+asyncmy", "mysql+aiomysql"])
async def db(request: pytest.FixtureRequest, sqlite_url: URL, emptied_mysql: URL) -> AsyncIterator[AsyncConnection]:
    url = sqlite_url if request.param == "sqlite" else emptied_mysql.set(drivername=request.param)
    engine = open_engine(url, pool_size=2)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def test_what_is_written_and_read_is_what_core_writes_and_reads(db: AsyncConnection) -> None:
    east = timezone(timedelta(hours=8))
    user = user_values(a_user(openid="一😀%s?", created_at=NOW.replace(microsecond=123456).astimezone(east)))
    add, find = Prepared(insert(USERS), *USERS.c.keys()), Prepared(ALL)

    assert await add.change(db, user) == 1
    (row,) = await find.rows(db, {"openid": "一😀%s?"})

    assert list(row) == list((await db.execute(ALL, {"openid": "一😀%s?"})).one())
    assert dict(zip(USERS.c.keys(), row, strict=True)) == user
    assert [type(value) for value in row] == [type(value) for value in user.values()]
    assert await find.rows(db, {"openid": "nobody"}) == []


async def test_several_rows_go_in_at_once_and_nothing_stays_nothing(db: AsyncConnection) -> None:
    turn = a_turn(a_session(a_user()))
    add = Prepared(insert(MESSAGES), *MESSAGES.c.keys())

    await add.change(db, *turn_values(turn))

    rows = await Prepared(TURN).rows(db, {})
    assert [list(row) for row in rows] == [list(row) for row in (await db.execute(TURN)).all()]
    assert dict(zip(MESSAGES.c.keys(), rows[0], strict=True)) == turn_values(turn)[0]


async def test_a_change_counts_the_rows_it_found_even_those_that_stay_as_they_are(db: AsyncConnection) -> None:
    user = a_user()
    await Prepared(insert(USERS), *USERS.c.keys()).change(db, user_values(user))
    rename = Prepared(update(USERS).where(USERS.c.id == bindparam("known")).values(nickname=bindparam("name")))

    assert await rename.change(db, {"known": user.id, "name": user.nickname}) == 1
    assert await rename.change(db, {"known": "nobody", "name": "x"}) == 0


async def test_a_value_that_is_missing_is_never_null(db: AsyncConnection) -> None:
    with pytest.raises(KeyError):
        await Prepared(ALL).rows(db, {})
    with pytest.raises(KeyError):
        await Prepared(insert(USERS), *USERS.c.keys()).change(db, {"id": "1"})


async def test_a_list_cannot_be_prepared(db: AsyncConnection) -> None:
    listed = Prepared(select(USERS).where(USERS.c.id.in_(bindparam("ids", expanding=True))))

    with pytest.raises(ValueError, match="lists"):
        await listed.rows(db, {"ids": ["1"]})


async def test_a_naive_time_is_refused(db: AsyncConnection) -> None:
    naive = user_values(a_user()) | {"created_at": NOW.replace(tzinfo=None)}

    with pytest.raises(ValueError, match="aware"):
        await Prepared(insert(USERS), *USERS.c.keys()).change(db, naive)


async def test_errors_are_those_of_sqlalchemy_and_leave_the_connection_usable(db: AsyncConnection) -> None:
    user = user_values(a_user())
    add = Prepared(insert(USERS), *USERS.c.keys())
    await add.change(db, user)

    with pytest.raises(IntegrityError) as caught:
        await add.change(db, user)
    with pytest.raises(DBAPIError, match=r"(?i)syntax"):
        await say(db, "NONSENSE")

    assert is_duplicate(caught.value)
    assert len(await Prepared(ALL).rows(db, {"openid": user["openid"]})) == 1


@pytest.fixture(params=["mysql+asyncmy", "mysql+aiomysql"])
async def mysql_db(request: pytest.FixtureRequest, emptied_mysql: URL) -> AsyncIterator[AsyncConnection]:
    engine = open_engine(emptied_mysql.set(drivername=request.param), pool_size=1)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def test_a_cancelled_query_costs_the_connection_and_the_rest_of_its_unit(mysql_db: AsyncConnection) -> None:
    slow: Any = Prepared(select(func.sleep(bindparam("seconds", type_=USERS.c.blocked.type)), literal("late")))
    query = asyncio.create_task(slow.rows(mysql_db, {"seconds": 1}))
    await asyncio.sleep(0.1)  # so that it is under way: an answer would come after the cancellation
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query

    assert mysql_db.invalidated
    with pytest.raises(InvalidRequestError):
        await Prepared(ALL).rows(mysql_db, {"openid": "x"})
    async with mysql_db.engine.connect() as another:
        assert await Prepared(ALL).rows(another, {"openid": "x"}) == []


async def test_a_lost_connection_is_known_as_one(mysql_db: AsyncConnection) -> None:
    number = (await mysql_db.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one()
    killer = open_engine(mysql_db.engine.url, pool_size=1)
    async with killer.connect() as other:
        await say(other, f"KILL {number}")
    await killer.dispose()

    with pytest.raises((OperationalError, OSError)) as caught:
        await Prepared(ALL).rows(mysql_db, {"openid": "x"})

    error = caught.value
    assert isinstance(error, OperationalError | OSError)
    assert is_lost(error)
