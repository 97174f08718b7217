"""What deleting and erasing have the database look at, and how much of it at once."""

from datetime import timedelta

import pytest
from sqlalchemy import URL

from chatassist.domain.model import Session, User
from chatassist.domain.ports.erasing import PORTION, Deletion
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status
from tests.builders import NOW, a_session, a_turn, a_user, new_id
from tests.fixtures.aftermath import rows
from tests.integration.explaining import a_crowd, explaining
from tests.integration.storing import keep, opened

WEEK = timedelta(days=7)
STATEMENTS = 43
"""Statements below that read or change."""


def a_deletion(user: User, session: Session | None = None, **given: object) -> Deletion:
    about = {"id": new_id(), "user_id": user.id, "session_id": session and session.id, "until": NOW + WEEK}
    return Deletion(**{**about, **given})  # type: ignore[arg-type]


async def a_crowd_that_deletes(tx: Transaction) -> None:
    await a_crowd(tx)
    for _ in range(100):
        await tx.users.add(user := a_user())
        await tx.sessions.add(session := a_session(user))
        await tx.deletions.add(a_deletion(user, session, until=NOW + 2 * WEEK))


async def everything_of_deleting(tx: Transaction) -> None:
    user = a_user()
    one, two = a_session(user, running=1), a_session(user, running=1)
    await tx.users.add(user)
    for session in (one, two):
        await tx.sessions.add(session)
        for position in range(1, 61):
            await tx.turns.add(a_turn(session, position, status=Status.COMPLETE, content="x"))
        await tx.turns.add(a_turn(session, 61))
    single, everything = a_deletion(user, one), a_deletion(user)
    await tx.users.hold(user.id)
    await tx.deletions.running(user.id)
    await tx.deletions.running(user.id, one.id)
    await tx.deletions.add(single)
    await tx.deletions.running(user.id, single.id)
    await tx.deletions.add(everything)
    await tx.deletions.find(user.id, None, NOW)
    await tx.deletions.find(user.id, one.id, NOW)
    await tx.deletions.hold(single.id, user.id)
    await tx.deletions.undo(single)
    await tx.jobs.take("purge", new_id(), NOW, NOW)
    assert await tx.erasures.overdue(NOW + WEEK)
    await tx.erasures.erase_deletion(everything.id)
    await tx.erasures.erase_deletion(everything.id)
    await tx.erasures.begin(user.id, NOW)
    await tx.erasures.unfinished(NOW)
    while await tx.erasures.erase_account(user.id):
        pass


async def test_deleting_and_erasing_use_indexes_and_sort_nothing(mysql: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async with explaining(mysql, monkeypatch, a_crowd_that_deletes) as explained:
        assert await explained(everything_of_deleting) == STATEMENTS


async def test_no_unit_erases_more_than_a_portion(mysql: URL) -> None:
    async with opened(mysql) as store:
        user = a_user()
        session = a_session(user)
        turns = (a_turn(session, position) for position in range(1, PORTION + 1))
        await keep(store, user, session, *turns)
        deletion = a_deletion(user)
        await store.write(lambda tx: tx.deletions.add(deletion))
        left = [2 * PORTION]
        while await store.write(lambda tx: tx.erasures.erase_deletion(deletion.id)):
            left.append((await rows(mysql, "SELECT count(*) FROM messages"))[0][0])
        assert left == [2 * PORTION, PORTION, 0, 0]
        assert await rows(mysql, "SELECT id FROM sessions") == []
