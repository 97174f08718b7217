"""What is overdue goes for good, by one process, which may break off at any time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence import sql_erasing
from chatassist.adapters.persistence.sql_erasing import SqlErasures
from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.ports.erasing import Deletion
from chatassist.domain.turns import Status
from tests.builders import NOW, a_session, a_turn, a_user, new_id
from tests.fixtures.aftermath import rows
from tests.fixtures.service import Serve, data_of, settings_for
from tests.integration.storing import keep, opened
from tests.integration.test_deleting import age, deletes, is_gone, restores

SESSIONS, TURNS = 6, 5


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


async def an_overdue_deletion(database: URL) -> None:
    async with opened(database) as store:
        await keep(store, user := a_user())
        for _ in range(SESSIONS):
            await keep(store, session := a_session(user))
            await keep(store, *(a_turn(session, 1 + at, status=Status.COMPLETE) for at in range(TURNS)))
        overdue = Deletion(id=new_id(), user_id=user.id, session_id=None, until=NOW - timedelta(days=3000))
        await store.write(lambda tx: tx.deletions.add(overdue))


async def counted(database: URL) -> tuple[int, int, int]:
    """How many messages, sessions and deletions there are."""
    tables = ("messages", "sessions", "deletions")
    messages, sessions, deletions = [(await rows(database, f"SELECT count(*) FROM {each}"))[0][0] for each in tables]
    return messages, sessions, deletions


async def test_only_what_is_overdue_is_purged(any_database: URL, serve: Serve) -> None:
    api = await serve(settings_for(any_database))
    person = await api.login()
    over, undone, open_still, stays = [await person.says(f"hello {number}") for number in range(4)]
    tokens = [data_of(await deletes(person, sent["sessionId"]))["undoToken"] for sent in (over, undone, open_still)]
    data_of(await restores(person, tokens[1]))
    for token in tokens[:2]:
        await age(any_database, token)
    await rows(any_database, "DELETE FROM jobs")

    await serve(settings_for(any_database))  # it purges first of all

    async def purged() -> bool:
        return len(await rows(any_database, "SELECT id FROM deletions")) == 1

    await until(purged)
    assert await counted(any_database) == (6, 3, 1)
    assert not await is_gone(person, undone)
    assert not await is_gone(person, stays)
    assert data_of(await restores(person, tokens[2])) == {"restoredSessions": 1, "restoredMessages": 2}


async def test_one_that_breaks_off_is_followed_by_another_once_its_time_is_over(
    any_database: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_erasing, "PORTION", 10)
    monkeypatch.setattr(sql_erasing, "_SOME_MESSAGES", sql_erasing._SOME_MESSAGES.limit(10))
    await an_overdue_deletion(any_database)
    erase, portions = SqlErasures.erase_deletion, 0

    async def breaks_off(self: SqlErasures, deletion_id: str) -> bool:
        nonlocal portions
        portions += 1
        more = await erase(self, deletion_id)
        if portions > 2:
            raise StoreUnavailable("after the portion, before its COMMIT")
        return more

    async def has_begun() -> bool:
        return portions > 2

    with monkeypatch.context() as breaking:
        breaking.setattr(SqlErasures, "erase_deletion", breaks_off)
        await serve(settings_for(any_database))
        await until(has_begun)
    assert await counted(any_database) == (40, SESSIONS, 1)

    await serve(settings_for(any_database))
    await asyncio.sleep(0.3)
    assert await counted(any_database) == (40, SESSIONS, 1), "another one's time is not over"

    await rows(any_database, "UPDATE jobs SET until = '2020-01-01 00:00:00'")
    await serve(settings_for(any_database))

    async def done() -> bool:
        return await counted(any_database) == (0, 0, 0)

    await until(done)


async def test_processes_that_all_purge_at_once_erase_everything_once(any_database: URL, serve: Serve) -> None:
    await an_overdue_deletion(any_database)
    await asyncio.gather(*(serve(settings_for(any_database)) for _ in range(3)))

    async def done() -> bool:
        return await counted(any_database) == (0, 0, 0)

    await until(done)
    assert len(await rows(any_database, "SELECT name FROM jobs")) == 1
