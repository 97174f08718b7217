"""What looking through sessions and history costs the database."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.sql import SqlStore
from chatassist.domain.history import Stretch
from chatassist.domain.model import Session, User
from chatassist.domain.ports.archive import FIRST_OF_ALL, Mark
from chatassist.domain.ports.persistence import Transaction
from tests.builders import NOW, a_session, a_turn, a_user, a_version
from tests.fixtures.service import Person, Serve, settings_for
from tests.integration.explaining import a_crowd, explaining
from tests.integration.storing import opened
from tests.integration.test_store_contract_versions import FAILED, GOOD


async def a_long_history(tx: Transaction, user: User, turns: int, *, sessions: int = 0) -> Session:
    await tx.users.add(user)
    for number in range(sessions):
        listed = NOW + timedelta(seconds=number)
        await tx.sessions.add(a_session(user, title="a title", spoken=True, pinned=number < 3, updated_at=listed))
    await tx.sessions.add(session := a_session(user, title="a title", spoken=True))
    for position in range(1, turns + 1):
        await tx.turns.add(turn := a_turn(session, position, **GOOD))
        if position % 5 == 0:
            await tx.turns.add_version(a_version(turn, 2, **FAILED))
    return session


@pytest.mark.parametrize("alone", [False, True], ids=["one of many", "alone"])
async def test_looking_uses_indexes_and_sorts_nothing(mysql: URL, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """Also where everything that is kept is one user's, and nearly all of it in one session."""
    user = a_user()
    kept: list[Session] = []

    async def prepare(tx: Transaction) -> None:
        if not alone:
            await a_crowd(tx)
        kept.append(await a_long_history(tx, user, 200, sessions=300))

    async def look(tx: Transaction) -> None:
        session = kept[-1]
        for keyword in ("", "title"):
            await tx.archive.sessions(user.id, FIRST_OF_ALL, 21, keyword=keyword)
            amid = Mark(pinned=True, at=NOW + timedelta(seconds=30), session_id=session.id)
            await tx.archive.sessions(user.id, amid, 21, keyword=keyword)
        for stretch in (Stretch(limit=12), Stretch(limit=12, position=99), Stretch(limit=12, position=99, older=False)):
            turns = await tx.archive.turns(session.id, stretch)
            await tx.archive.versions(session.id, turns[0].message.position, turns[-1].message.position)
        await tx.archive.place(session.id, turns[0].message.id)
        await tx.archive.place(session.id, turns[0].reply.id)
        await tx.sessions.get(session.id, user.id)
        await tx.sessions.edit(session.id, user.id, title="another", pinned=True)

    async with explaining(mysql, monkeypatch, prepare) as explained:
        assert await explained(look) == 18


Ask = Callable[[Transaction], Awaitable[Any]]


async def rows_read(store: SqlStore, ask: Ask) -> int:
    """Return how many rows, of tables and indexes, the server looked at."""

    async def counted(tx: Transaction) -> int:
        async def so_far() -> int:
            status = await tx.archive._db.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'")  # type: ignore[attr-defined]
            return sum(int(row["Value"]) for row in status.mappings())

        before = await so_far()
        alone = await so_far() - before
        before = await so_far()
        await ask(tx)
        return await so_far() - before - alone

    return await store.read(counted)


async def test_a_page_costs_the_same_however_long_the_history(mysql: URL) -> None:
    few, many = a_user(), a_user()
    async with opened(mysql, pool_size=1) as store:
        short = await store.write(lambda tx: a_long_history(tx, few, 50, sessions=50))
        long = await store.write(lambda tx: a_long_history(tx, many, 1000, sessions=1000))

        def asked(user: User, session: Session) -> list[Ask]:
            return [
                lambda tx: tx.archive.sessions(user.id, FIRST_OF_ALL, 21),
                lambda tx: tx.archive.sessions(user.id, FIRST_OF_ALL, 6),
                lambda tx: tx.archive.turns(session.id, Stretch(limit=12)),
                lambda tx: tx.archive.turns(session.id, Stretch(limit=12, position=30)),
                lambda tx: tx.archive.turns(session.id, Stretch(limit=12, position=20, older=False)),
                lambda tx: tx.archive.versions(session.id, 20, 31),
            ]

        for of_few, of_many in zip(asked(few, short), asked(many, long), strict=True):
            cost = await rows_read(store, of_few)
            assert cost == await rows_read(store, of_many)
            assert 0 < cost < 60


async def test_a_304_takes_one_small_read_and_a_page_a_handful(mysql: URL, serve: Serve) -> None:
    api = await serve(settings_for(mysql))
    person = await api.login()
    session = (await person.says("first"))["sessionId"]
    last = (await person.says("second", sessionId=session))["messageId"]
    who, row, turns_and_versions = 1, 1, 2
    paths = {
        "/v1/user/info": (who, who),
        "/v1/chat/sessions": (who, who + 2),
        f"/v1/chat/sessions/{session}": (who + row, who + row),
        f"/v1/chat/history?sessionId={session}": (who + row, who + row + turns_and_versions),
        f"/v1/chat/history?sessionId={session}&before={last}": (who + row, who + row + 1 + turns_and_versions),
    }
    async with opened(mysql, pool_size=1) as store:
        for path, (unchanged, whole) in paths.items():
            tag = {"If-None-Match": (await person.get(path)).headers["ETag"]}
            assert await statements(store, person, path, tag, 304) == unchanged, path
            assert await statements(store, person, path, {}, 200) == whole, path


async def statements(store: SqlStore, person: Person, path: str, headers: dict[str, str], status: int) -> int:
    async def questions(tx: Transaction) -> int:
        counted = await tx.archive._db.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Questions'")  # type: ignore[attr-defined]
        return int(counted.mappings().one()["Value"])

    before = await store.read(questions)
    alone = await store.read(questions) - before
    least = []
    for _ in range(5):  # jobs of the service ask as well, now and then
        before = await store.read(questions)
        assert (await person.get(path, headers)).status_code == status
        least.append(await store.read(questions) - before - alone)
    return min(least)
