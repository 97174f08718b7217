"""What a search costs the database: the rows that it looks through, and little else."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import URL, text

from chatassist.adapters.persistence.sql import SqlStore
from chatassist.domain.model import User
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.search import Looked
from tests.builders import a_session, a_turn, a_user, a_version
from tests.integration.explaining import a_crowd, explaining, listen
from tests.integration.storing import connected, opened
from tests.integration.test_archive_costs import rows_read
from tests.integration.test_store_contract_versions import FAILED, GOOD


async def a_talker(tx: Transaction, user: User, turns: int) -> None:
    """Keep somebody who said so much, in sessions of ten turns; every fifth turn has two versions."""
    await tx.users.add(user)
    for begin in range(0, turns, 10):
        await tx.sessions.add(session := a_session(user, spoken=True))
        for position in range(1, min(turns - begin, 10) + 1):
            await tx.turns.add(turn := a_turn(session, position, text=f"number {begin + position}", **GOOD))
            if position % 5 == 0:
                await tx.turns.add_version(a_version(turn, 2, **FAILED))


async def look(tx: Transaction, user: User, keyword: str, messages: int, limit: int = 21) -> Looked:
    return await tx.search.look(user.id, keyword, before=None, messages=messages, limit=limit)


async def test_searching_walks_the_users_index_and_sorts_nothing(mysql: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    user = a_user()

    async def prepare(tx: Transaction) -> None:
        await a_crowd(tx)
        await a_talker(tx, user, 200)

    async def search(tx: Transaction) -> None:
        for messages in (10, 200, 10_000):
            looked = await look(tx, user, "good", messages)
            await tx.search.look(user.id, "good", before=looked.hits[-1].message_id, messages=messages, limit=21)

    async with explaining(mysql, monkeypatch, prepare) as explained:
        assert await explained(search) == 12


async def test_sqlite_walks_the_same_index(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    user, said = a_user(), list[tuple[str, Any]]()
    async with opened(sqlite_url, pool_size=1) as store:
        await store.write(a_crowd)
        await store.write(lambda tx: a_talker(tx, user, 200))
        with monkeypatch.context() as noting:
            listen(noting, lambda statement, values: said.append((statement, values)))
            await store.read(lambda tx: look(tx, user, "good", 100))
        async with connected(sqlite_url) as db:
            await db.execute(text("ANALYZE"))
            for statement, values in said:
                plan = (await db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).mappings().all()
                steps = [str(step["detail"]) for step in plan]
                assert "ix_messages_user_id_id (user_id=? AND id" in steps[0], steps
                assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps), steps


async def test_what_a_search_reads_does_not_grow_with_what_lies_beyond_its_bound(mysql: URL) -> None:
    few, many = a_user(), a_user()
    async with opened(mysql, pool_size=1) as store:
        await store.write(lambda tx: a_talker(tx, few, 50))
        await store.write(lambda tx: a_talker(tx, many, 1000))
        for keyword, most in (("no such thing", 2.1), ("good", 5)):
            costs = [await rows_read_by(store, user, keyword, 100) for user in (few, many)]
            assert costs[0] == costs[1]
            assert costs[0] < most * 100, "each message once in the index and once itself, and a few rows for each hit"


async def rows_read_by(store: SqlStore, user: User, keyword: str, messages: int) -> int:
    return await rows_read(store, partial(look, user=user, keyword=keyword, messages=messages))
