"""Whether the database finds what a unit of work asks for by an index, instead of looking at every row or sorting.

async with explaining(url, monkeypatch, prepare) as explained:
    await explained(work)                   # fails on a full scan, a filesort or a temporary table
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, RowMapping
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_cursor

from chatassist.adapters.persistence import prepared
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status
from tests.builders import a_login, a_session, a_turn, a_user, a_version
from tests.integration.storing import connected, opened

Work = Callable[[Transaction], Awaitable[None]]
Explained = Callable[[Work], Awaitable[int]]
"""Explain every statement of a unit of work that reads or changes; return how many those were."""


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


@asynccontextmanager
async def explaining(url: URL, monkeypatch: pytest.MonkeyPatch, prepare: Work = a_crowd) -> AsyncIterator[Explained]:
    """Fill the database, and explain what units of work say to it."""
    said: list[tuple[str, Any]] = []

    def note(statement: str, values: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            said.append((statement, values))

    async with opened(url, pool_size=1) as store:
        await store.write(prepare)

        async def explained(work: Work) -> int:
            said.clear()
            with monkeypatch.context() as noting:
                listen(noting, note)
                await store.write(work)
            async with connected(url) as db:
                await db.exec_driver_sql("ANALYZE TABLE users, logins, sessions, messages, deletions")
                for statement, values in said:
                    explain = f"EXPLAIN FORMAT=TRADITIONAL {statement}"
                    plan = (await db.exec_driver_sql(explain, values)).mappings().all()
                    assert all(_is_by_index(step) for step in plan), (statement, plan)
            return len(said)

        yield explained


def listen(noting: pytest.MonkeyPatch, note: Callable[[str, Any], None]) -> None:
    """Note at the two doors to the driver, SQLAlchemy's and ours, of which every statement passes one."""
    execute, through = AsyncAdapt_dbapi_cursor.execute, prepared._through

    def noted(cursor: AsyncAdapt_dbapi_cursor, statement: str, values: Any = None) -> Any:
        note(statement, values)
        return execute(cursor, statement, values)

    class Noting:
        def __init__(self, cursor: Any) -> None:
            self._cursor = cursor

        async def execute(self, statement: str, *values: Any) -> None:
            note(statement, *values or (None,))
            await self._cursor.execute(statement, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._cursor, name)

    noting.setattr(AsyncAdapt_dbapi_cursor, "execute", noted)
    noting.setattr(prepared, "_through", lambda db, ask: through(db, lambda cursor: ask(Noting(cursor))))


def _is_by_index(step: RowMapping) -> bool:
    if (step["table"] or "").startswith(
        ("<derived", "instances", "erasures", "jobs")
    ):  # what was just found; a handful of rows
        return True
    how = step["Extra"] or ""
    if how.startswith(("Impossible", "No matching", "no matching", "Select tables optimized")):
        return True
    if step["select_type"] == "UPDATE":  # which notes the rows first, where it changes the index that it goes along
        how = how.replace("Using temporary", "")
    return step["key"] and step["type"] not in {"ALL", "index"} and "filesort" not in how and "temporary" not in how
