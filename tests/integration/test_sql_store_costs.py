"""What a turn costs the database: how many statements, and what they have to look at."""

from datetime import date
from typing import Any

import pytest
from sqlalchemy import URL, RowMapping
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_cursor

from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status, Usage
from chatassist.domain.usage import Meter, Used
from tests.builders import NOW, a_login, a_save, a_session, a_turn, a_user, a_version, an_end, new_id
from tests.fixtures.service import Serve, settings_for
from tests.integration.storing import opened

METER = Meter(subject="somebody", day=date(2026, 11, 22))


async def a_crowd(tx: Transaction) -> None:
    """So many rows that a full scan is the worse plan."""
    for _ in range(20):
        await tx.users.add(user := a_user())
        await tx.logins.add(a_login(user))
        await tx.sessions.add(session := a_session(user))
        for position in range(1, 31):
            turn = a_turn(session, position, key=f"k{position}", status=Status.COMPLETE, content="x")
            await tx.turns.add(turn)
            await tx.turns.add_version(a_version(turn, 2, status=Status.STOPPED, content="x"))


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
    await tx.sessions.hold(session.id, user.id)
    await tx.sessions.entitle(session.id, "a title")
    await tx.users.revise(user.id)
    await tx.usages.count(METER, Used(messages=1))
    await tx.usages.find(METER)
    await tx.turns.window(session.id, 10)
    await tx.turns.window(session.id, 10, before=30)
    await tx.turns.latest(session.id, 10)
    await tx.turns.versions(session.id, 60)
    await tx.turns.last_position(session.id)
    await tx.turns.add(turn)
    await tx.turns.find(turn.reply.id, user.id)
    await tx.turns.find_settled(turn.reply.id, user.id)
    await tx.turns.find_by_key("key", user.id)
    await tx.replies.running("instance-1")
    await tx.replies.save([a_save(turn), a_save(a_turn(session))])
    await tx.replies.rate(turn.reply.id, None)
    await tx.replies.finish(turn.reply.id, 0, an_end(usage=Usage(input_tokens=1, output_tokens=1)), meter=METER)
    await tx.replies.finish(turn.reply.id, 0, an_end())
    await tx.replies.restart(turn.reply.id, 0, "instance-1")
    await tx.replies.finish_orphans(NOW, an_end(None))
    await tx.turns.delete(session.id, 59, NOW)
    await tx.turns.purge(NOW)
    await tx.logins.end(new_id())
    await tx.logins.end_all(new_id())


OF_A_TURN = 31
"""Statements above that read or change: five of them delete a turn."""


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
        assert len(said) == OF_A_TURN
        async with store._engine.connect() as db:
            await db.exec_driver_sql("ANALYZE TABLE users, logins, sessions, messages")
            for statement, values in said:
                plan = (await db.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {statement}", values)).mappings().all()
                assert all(_is_by_index(step) for step in plan), (statement, plan)


def _is_by_index(step: RowMapping) -> bool:
    if (step["table"] or "").startswith(("<derived", "instances")):  # what was just found; a handful of rows
        return True
    how = step["Extra"] or ""
    if how.startswith(("Impossible", "No matching", "no matching", "Select tables optimized")):
        return True
    return step["key"] and step["type"] not in {"ALL", "index"} and "filesort" not in how and "temporary" not in how


async def test_a_turn_is_stored_by_one_statement(mysql: URL) -> None:
    async with opened(mysql, pool_size=1) as store:

        async def inserts() -> int:
            async with store._engine.connect() as db:
                counted = await db.exec_driver_sql("SHOW SESSION STATUS LIKE 'Com_insert'")
                return int(counted.mappings().one()["Value"])

        before = await inserts()
        await store.write(lambda tx: tx.turns.add(a_turn(a_session(a_user()), key=new_id())))
        assert await inserts() == before + 1


async def test_a_turn_takes_eight_round_trips(mysql: URL, serve: Serve) -> None:
    """Who calls, BEGIN, touch, window, insert, count, COMMIT, end: nothing of restarts and versions adds to it."""
    api = await serve(settings_for(mysql))
    person = await api.login()
    session = (await person.says("first"))["sessionId"]
    async with opened(mysql, pool_size=1) as store, store._engine.connect() as db:

        async def questions() -> int:
            counted = await db.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Questions'")
            return int(counted.mappings().one()["Value"])

        before = await questions()
        alone = await questions() - before
        least = []
        for number in range(5):  # jobs of the service ask as well, now and then
            before = await questions()
            await person.says(f"again {number}", sessionId=session)
            least.append(await questions() - before - alone)
        assert min(least) == 8
