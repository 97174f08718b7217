"""What a turn costs the database: how many statements, and what they have to look at."""

from typing import Any

import pytest
from sqlalchemy import URL, RowMapping
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_cursor

from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status
from tests.builders import NOW, a_login, a_session, a_turn, a_user, an_end, new_id
from tests.integration.storing import opened


async def a_crowd(tx: Transaction) -> None:
    """So many rows that a full scan is the worse plan."""
    for _ in range(20):
        await tx.users.add(user := a_user())
        await tx.logins.add(a_login(user))
        await tx.sessions.add(session := a_session(user))
        for position in range(1, 31):
            await tx.turns.add(a_turn(session, position, key=f"k{position}", status=Status.COMPLETE, content="x"))


async def everything_of_a_turn(tx: Transaction) -> None:
    user = a_user()
    login, session = a_login(user), a_session(user)
    turn = a_turn(session, 61, key="key")
    await tx.users.add(user)
    await tx.logins.add(login)
    await tx.sessions.add(session)
    for position in range(1, 61):
        await tx.turns.add(a_turn(session, position, status=Status.COMPLETE, content="x"))
    await tx.logins.find(login.id)
    await tx.users.find(user.openid)
    await tx.sessions.touch(session.id, user.id, NOW)
    await tx.turns.window(session.id, 10)
    await tx.turns.latest(session.id, 10)
    await tx.turns.add(turn)
    await tx.turns.find(turn.reply.id, user.id)
    await tx.turns.find_by_key("key", user.id)
    await tx.replies.finish(turn.reply.id, 0, an_end())
    await tx.replies.finish_orphans(NOW, an_end(None))
    await tx.logins.end(new_id())
    await tx.logins.end_all(new_id())


async def test_the_statements_of_a_turn_use_indexes_and_sort_nothing(
    mysql: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, Any]] = []
    execute = AsyncAdapt_dbapi_cursor.execute

    def noted(cursor: AsyncAdapt_dbapi_cursor, statement: str, values: Any = None) -> Any:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            said.append((statement, values))
        return execute(cursor, statement, values)

    async with opened(mysql, pool_size=1) as store:
        await store.write(a_crowd)
        with monkeypatch.context() as noting:  # at the driver's door, which every statement passes
            noting.setattr(AsyncAdapt_dbapi_cursor, "execute", noted)
            await store.write(everything_of_a_turn)
        assert len(said) == 11
        async with store._engine.connect() as db:
            await db.exec_driver_sql("ANALYZE TABLE users, logins, sessions, messages")
            for statement, values in said:
                plan = (await db.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {statement}", values)).mappings().all()
                assert all(_is_by_index(step) for step in plan), (statement, plan)


def _is_by_index(step: RowMapping) -> bool:
    if step["table"].startswith(("<derived", "instances")):  # what was just found; a handful of rows
        return True
    return step["key"] and step["type"] not in {"ALL", "index"} and "filesort" not in (step["Extra"] or "")


async def test_a_turn_is_stored_by_one_statement(mysql: URL) -> None:
    async with opened(mysql, pool_size=1) as store:

        async def inserts() -> int:
            async with store._engine.connect() as db:
                counted = await db.exec_driver_sql("SHOW SESSION STATUS LIKE 'Com_insert'")
                return int(counted.mappings().one()["Value"])

        before = await inserts()
        await store.write(lambda tx: tx.turns.add(a_turn(a_session(a_user()), key=new_id())))
        assert await inserts() == before + 1
