"""What every store promises about reading all that is kept of a user: everything once, in order, in bounded pages."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.domain.model import Session, User
from chatassist.domain.ports.exports import START, Entry, Page
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Message, Status
from chatassist.domain.usage import Meter, Used
from tests.builders import NOW, a_login, a_session, a_turn, a_user, a_version
from tests.fixtures.databases import AnyStore
from tests.integration.explaining import explaining
from tests.integration.storing import a_kept_session, keep, keep_versions

ROOM = 1_000_000


async def page(store: AnyStore, session: Session, after: tuple[int, int] = START, room: int = ROOM) -> Page:
    return await store.read(lambda tx: tx.exports.entries(session, after, room))


async def pages(store: AnyStore, session: Session, room: int) -> list[list[Entry]]:
    """Read all pages of a session."""
    read = [await page(store, session, room=room)]
    while read[-1].more:
        read.append(await page(store, session, read[-1].entries[-1].place, room))
    return [list(one.entries) for one in read]


def text_of(entry: Entry) -> str:
    return entry.said.content


async def test_days_come_oldest_first_and_are_the_subjects_own(store: AnyStore) -> None:
    async def count(tx: Transaction) -> None:
        for day in (3, 1, 2):
            meter = Meter(subject="somebody", day=date(2026, 11, day))
            await tx.usages.count(meter, Used(messages=day, input_tokens=10, output_tokens=20, audio_ms=30))
        await tx.usages.count(Meter(subject="Somebody", day=date(2026, 11, 4)), Used(messages=1))

    await store.write(count)
    days = await store.read(lambda tx: tx.exports.days("somebody", date.min, 2))
    assert [day.day.day for day in days] == [1, 2]
    assert days[1].used == Used(messages=2, input_tokens=10, output_tokens=20, audio_ms=30)
    rest = await store.read(lambda tx: tx.exports.days("somebody", days[-1].day, 2))
    assert [day.day.day for day in rest] == [3]


async def test_logins_come_by_id_and_are_the_users_own(store: AnyStore) -> None:
    await keep(store, user := a_user(), other := a_user())
    logins = [a_login(user) for _ in range(3)]
    for login in (logins[2], a_login(other), logins[0], logins[1]):
        await store.write(lambda tx, login=login: tx.logins.add(login))  # type: ignore[misc]
    assert list(await store.read(lambda tx: tx.exports.logins(user.id, "", 2))) == logins[:2]
    assert list(await store.read(lambda tx: tx.exports.logins(user.id, logins[1].id, 2))) == logins[2:]


async def test_sessions_come_by_id_listed_or_not_and_deleted_ones_are_left_out(store: AnyStore) -> None:
    user, other = a_user(), a_user()
    sessions = [
        a_session(user, title="named", pinned=True, spoken=True),
        a_session(user),  # nothing ever came of it
        a_session(user, deletion_id="0" * 32),
        a_session(user, updated_at=NOW - timedelta(days=1)),
    ]
    await keep(store, user, other, sessions[3], sessions[1], a_session(other), sessions[2], sessions[0])
    kept = [sessions[0], sessions[1], sessions[3]]
    assert list(await store.read(lambda tx: tx.exports.sessions(user.id, "", 2))) == kept[:2]
    assert list(await store.read(lambda tx: tx.exports.sessions(user.id, kept[1].id, 2))) == kept[2:]
    assert list(await store.read(lambda tx: tx.exports.sessions(user.id, kept[2].id, 2))) == []


async def test_a_session_reads_as_it_went_with_every_version_and_what_is_shown(store: AnyStore) -> None:
    session = await a_kept_session(store)
    first = a_turn(session, 1, "one", key="k", status=Status.COMPLETE, content="one!", thinking="hm")
    better, worse = a_version(first, 2, status=Status.STOPPED, content="two!"), a_version(first, 3)
    running = a_turn(session, 2, "two", content="so far")
    await keep(store, running, first)
    await keep_versions(store, better, worse)
    await keep(store, a_turn(replace(session, id="f" * 32), 1, "elsewhere"))

    [entries] = await pages(store, session, ROOM)

    assert [entry.place for entry in entries] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]
    expected = [first.message, first.reply, better.reply, worse.reply, running.message, running.reply]
    assert [entry.said for entry in entries] == expected
    assert [entry.shown for entry in entries if not isinstance(entry.said, Message)] == [False, True, False, True]


async def test_what_is_left_of_a_deleted_turn_is_not_read(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, a_turn(session, 1, "gone", key="k"), a_turn(session, 2, "gone too"), a_turn(session, 3, "here"))
    for position in (1, 2):
        await store.write(lambda tx, at=position: tx.turns.delete(session.id, at, NOW))  # type: ignore[misc]
    [entries] = await pages(store, session, ROOM)
    assert [entry.place for entry in entries] == [(3, 0), (3, 1)]


async def test_an_empty_session_has_one_empty_page(store: AnyStore) -> None:
    session = await a_kept_session(store)
    assert await page(store, session) == Page(entries=[], more=False)


async def test_a_page_has_as_much_as_there_is_room_for_in_bytes(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(
        store,
        a_turn(session, 1, "a" * 40, status=Status.COMPLETE, content="字" * 20),  # 60 bytes
        a_turn(session, 2, "b" * 100, status=Status.COMPLETE, content="c", thinking="😀" * 100),
        a_turn(session, 3, "d", status=Status.COMPLETE, content="e"),
    )
    read = await pages(store, session, 100)
    sizes = [[len(text_of(entry)) for entry in entries] for entries in read]
    assert sizes == [[40, 20], [100], [1], [1, 1]], "the thinking has no room left, but goes all the same"
    assert await pages(store, session, 0) == [[entry] for entries in read for entry in entries]


async def test_a_long_session_is_read_whole_in_bounded_pages(store: AnyStore) -> None:
    session = await a_kept_session(store)

    async def fill(tx: Transaction) -> None:
        for position in range(1, 601):
            await tx.turns.add(a_turn(session, position, f"question {position}", content="x" * (position % 50)))

    await store.write(fill)
    read = await pages(store, session, 4096)
    assert [entry.place for entries in read for entry in entries] == [
        (position, version) for position in range(1, 601) for version in (0, 1)
    ]
    assert all(sum(len(text_of(entry)) for entry in entries) <= 4096 for entries in read)
    [*full, _] = [len(entries) for entries in await pages(store, session, ROOM)]
    if not isinstance(store, MemoryStore):
        assert full, "however short the texts are"
        assert max(full) <= 500


async def a_crowd(tx: Transaction) -> None:
    """Others, with so many rows that a full scan is the worse plan."""
    for _ in range(50):
        await tx.users.add(other := a_user())
        for _ in range(20):
            await tx.sessions.add(a_session(other))
            await tx.logins.add(a_login(other))


async def an_owner(tx: Transaction, user: User, sessions: Sequence[Session]) -> None:
    await tx.users.add(user)
    for session in sessions:
        await tx.sessions.add(session)
        for position in range(1, 21):
            await tx.turns.add(a_turn(session, position, status=Status.COMPLETE, content="x"))
    for day in range(1, 300):
        at = date(2026, 1, 1) + timedelta(days=day)
        for subject in ("somebody", user.id):
            await tx.usages.count(Meter(subject=subject, day=at), Used(messages=1))


async def test_its_statements_use_indexes_and_sort_nothing(mysql: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    user = a_user()
    sessions = [a_session(user) for _ in range(50)]

    async def prepare(tx: Transaction) -> None:
        await a_crowd(tx)
        await an_owner(tx, user, sessions)

    async def export(tx: Transaction) -> None:
        for after in (date.min, date(2026, 8, 1)):
            assert await tx.exports.days(user.id, after, 200)
        await tx.exports.logins(user.id, "", 200)
        await tx.exports.logins(user.id, sessions[3].id, 200)
        assert await tx.exports.sessions(user.id, "", 20)
        assert await tx.exports.sessions(user.id, sessions[20].id, 20)
        for place in (START, (10, 1)):
            assert (await tx.exports.entries(sessions[20], place, ROOM)).entries

    async with explaining(mysql, monkeypatch, prepare) as explained:
        assert await explained(export) == 10
