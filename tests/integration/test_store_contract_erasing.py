"""What every store promises about deleting, undoing and erasing, over memory, SQLite and both MySQL drivers."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from chatassist.adapters.persistence import memory_erasing, sql_erasing
from chatassist.domain.errors import MessageNotFound, SessionNotFound
from chatassist.domain.model import Session, TitleSource, User
from chatassist.domain.ports.erasing import Deletion
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status, Turn
from tests.builders import NOW, a_login, a_session, a_turn, a_user, a_version, an_end, new_id
from tests.fixtures.databases import AnyStore
from tests.integration.storing import keep, keep_versions, turn_of

SECOND = timedelta(seconds=1)
WEEK = timedelta(days=7)


def a_deletion(user: User, session: Session | None = None, **given: Any) -> Deletion:
    about = {"id": new_id(), "user_id": user.id, "session_id": session.id if session else None, "until": NOW + WEEK}
    return Deletion(**{**about, **given})


async def delete(store: AnyStore, deletion: Deletion) -> Deletion | None:
    return await store.write(lambda tx: tx.deletions.add(deletion))


async def undo(store: AnyStore, deletion: Deletion) -> int:
    return await store.write(lambda tx: tx.deletions.undo(deletion))


async def found(store: AnyStore, user: User, session: Session | None = None, now: datetime = NOW) -> Deletion | None:
    return await store.read(lambda tx: tx.deletions.find(user.id, session.id if session else None, now))


async def session_of(store: AnyStore, session: Session) -> Session | None:
    try:
        return await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))
    except SessionNotFound:
        return None


async def running(store: AnyStore, user: User, within: str | None = None) -> set[str]:
    return {turn.reply.id for turn in await store.read(lambda tx: tx.deletions.running(user.id, within))}


def done(session: Session, position: int = 1, **reply: Any) -> Turn:
    return a_turn(session, position, status=Status.COMPLETE, content="an answer", **reply)


# --- Deleting and undoing -------------------------------------------------------------------------------------------


async def test_a_deleted_session_is_found_by_nobody_and_comes_back_as_it_was(store: AnyStore) -> None:
    user = a_user()
    named = {"title": "a title", "title_source": TitleSource.USER, "preview": "seen", "pinned": True, "turns": 2}
    session = a_session(user, **named, messages=4, spoken=True, revision=5)
    other = a_session(user, spoken=True)
    first, second = done(session, 1, key="k"), done(session, 2)
    await keep(store, user, session, other, first, second, done(other))
    await keep_versions(store, a_version(second, 2, status=Status.FAILED))

    deletion = a_deletion(user, session)
    assert await delete(store, deletion) == replace(deletion, sessions=1, messages=4)

    assert await session_of(store, session) is None
    assert await turn_of(store, first) is None
    with pytest.raises(MessageNotFound):
        await store.read(lambda tx: tx.turns.find_by_key("k", user.id))
    for gone in (
        lambda tx: tx.sessions.touch(session.id, user.id, NOW),
        lambda tx: tx.sessions.hold(session.id, user.id),
    ):
        with pytest.raises(SessionNotFound):
            await store.write(gone)
    assert await session_of(store, other) == other
    assert await undo(store, deletion) == 1
    assert await session_of(store, session) == replace(session, revision=7)
    assert await turn_of(store, first) == first
    assert await undo(store, deletion) == 0


async def test_all_sessions_are_those_that_were_not_deleted_before_and_each_deletion_brings_back_its_own(
    store: AnyStore,
) -> None:
    user, other = a_user(), a_user()
    one, two, three, foreign = (a_session(each, messages=2) for each in (user, user, user, other))
    await keep(store, user, other, one, two, three, foreign, done(one), done(two), done(three), done(foreign))
    single, everything = a_deletion(user, one), a_deletion(user)
    await delete(store, single)

    assert await delete(store, everything) == replace(everything, sessions=2, messages=4)

    assert await session_of(store, foreign) == foreign
    assert await undo(store, single) == 1
    assert [await session_of(store, each) is None for each in (one, two, three)] == [False, True, True]
    assert await undo(store, everything) == 2


async def test_what_is_no_session_of_the_user_is_not_deleted_and_leaves_no_deletion(store: AnyStore) -> None:
    user, other = a_user(), a_user()
    await keep(store, user, other, session := a_session(user), done(session))
    for nothing in (
        a_deletion(other, session),
        a_deletion(other),
        a_deletion(user, a_session(user)),
    ):
        assert await delete(store, nothing) is None
        assert await store.write(lambda tx, each=nothing: tx.deletions.hold(each.id, each.user_id)) is None  # type: ignore[misc]
    assert await session_of(store, session) == session


async def test_of_turns_that_were_erased_before_nothing_is_counted(store: AnyStore) -> None:
    user = a_user()
    session = a_session(user, messages=4, turns=2)
    await keep(store, user, session, done(session, 1, key="k"), done(session, 2))
    await store.write(lambda tx: tx.turns.delete(session.id, 1, NOW))
    counted = await delete(store, a_deletion(user, session))
    assert counted
    assert (counted.sessions, counted.messages) == (1, 2)


async def test_a_deletion_is_found_by_its_session_or_as_the_youngest_of_all_while_it_can_be_undone(
    store: AnyStore,
) -> None:
    user, other = a_user(), a_user()
    one, two, three = a_session(user), a_session(user), a_session(user)
    await keep(store, user, other, one, done(one))
    older = await delete(store, a_deletion(user))
    await keep(store, two, done(two))
    younger = await delete(store, a_deletion(user, until=NOW + 2 * WEEK))
    await keep(store, three, done(three))
    single = await delete(store, a_deletion(user, three, until=NOW + WEEK))
    assert older
    assert younger
    assert single

    assert await found(store, user) == younger
    assert await found(store, user, one) == older
    assert await found(store, user, three) == single
    assert await found(store, user, three, NOW + WEEK - SECOND) == single
    assert await found(store, user, three, NOW + WEEK) is None
    assert await found(store, other) is None
    assert await found(store, other, one) is None
    assert await found(store, user, a_session(user)) is None
    await undo(store, younger)
    assert await found(store, user) == older, "what was undone is not there to be undone"
    assert await found(store, user, two) is None


async def test_a_deletion_is_held_by_its_user_alone(store: AnyStore) -> None:
    user = a_user()
    await keep(store, user, session := a_session(user), done(session))
    deletion = await delete(store, a_deletion(user, session))
    assert deletion

    async def held(deletion_id: str, user_id: str) -> Deletion | None:
        return await store.write(lambda tx: tx.deletions.hold(deletion_id, user_id))

    assert await held(deletion.id, user.id) == deletion
    assert await held(deletion.id, new_id()) is None
    assert await held(new_id(), user.id) is None
    await undo(store, deletion)
    assert await held(deletion.id, user.id) == replace(deletion, sessions=0, messages=0)


async def test_what_runs_is_found_by_user_session_and_deletion(store: AnyStore) -> None:
    user, other = a_user(), a_user()
    one, two, foreign = a_session(user, running=1), a_session(user, running=1), a_session(other, running=1)
    runs_one, runs_two, runs_elsewhere = a_turn(one, 2), a_turn(two), a_turn(foreign)
    await keep(store, user, other, one, two, foreign, done(one), runs_one, runs_two, runs_elsewhere)

    assert await running(store, user) == {runs_one.reply.id, runs_two.reply.id}
    assert await running(store, user, one.id) == {runs_one.reply.id}
    assert await running(store, user, foreign.id) == set()
    deletion = a_deletion(user, one)
    await delete(store, deletion)
    assert await running(store, user, deletion.id) == {runs_one.reply.id}
    assert await store.write(lambda tx: tx.replies.finish(runs_one.reply.id, 0, an_end()))
    assert await running(store, user, deletion.id) == set()
    assert await running(store, user) == {runs_two.reply.id}


async def test_a_session_is_listed_again_by_what_came_of_it(store: AnyStore) -> None:
    """A reply that ends while its session is deleted changes what is shown of it later."""
    user = a_user()
    session = a_session(user, running=1, turns=1)
    await keep(store, user, session, turn := a_turn(session))
    await delete(store, deletion := a_deletion(user, session))
    await store.write(lambda tx: tx.replies.finish(turn.reply.id, 0, an_end("an answer")))
    await undo(store, deletion)
    back = await session_of(store, session)
    assert back
    assert (back.spoken, back.running, back.preview, back.listed_at) == (True, 0, "an answer", session.updated_at)


async def test_of_many_who_delete_the_same_at_once_one_does(store: AnyStore) -> None:
    user = a_user()
    await keep(store, user, session := a_session(user), done(session))
    wishes = [a_deletion(user, session) for _ in range(5)] + [a_deletion(user) for _ in range(5)]
    results = await asyncio.gather(*(delete(store, wish) for wish in wishes))
    assert sum(result is not None for result in results) == 1


# --- Erasing --------------------------------------------------------------------------------------------------------


async def overdue(store: AnyStore, now: datetime) -> str | None:
    return await store.write(lambda tx: tx.erasures.overdue(now))


async def erased(store: AnyStore, deletion: Deletion) -> int:
    """Erase to the end; return in how many portions."""
    portions = 0
    while await store.write(lambda tx: tx.erasures.erase_deletion(deletion.id)):
        portions += 1
    return portions


async def test_a_deletion_is_overdue_when_its_time_is_over_and_can_never_be_undone_from_then_on(
    store: AnyStore,
) -> None:
    user = a_user()
    one, two = a_session(user), a_session(user)
    await keep(store, user, one, two, done(one), done(two))
    first, second = a_deletion(user, one), a_deletion(user, two, until=NOW + WEEK + SECOND)
    await delete(store, first)
    await delete(store, second)

    assert await overdue(store, NOW + WEEK - SECOND) is None
    assert await overdue(store, NOW + WEEK) == first.id
    held = await store.write(lambda tx: tx.deletions.hold(first.id, user.id))
    assert held
    assert held.until < NOW, "not even by a clock that is far behind"
    assert await overdue(store, NOW + WEEK) == first.id, "until it is erased"
    await erased(store, first)
    assert await overdue(store, NOW + WEEK) is None
    assert await store.write(lambda tx: tx.deletions.hold(first.id, user.id)) is None
    assert await undo(store, second) == 1


async def test_erasing_a_deletion_takes_all_of_its_sessions_in_portions_and_nothing_else(
    store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for portions in (memory_erasing, sql_erasing):
        monkeypatch.setattr(portions, "PORTION", 4)
    monkeypatch.setattr(sql_erasing, "_SOME_MESSAGES", sql_erasing._SOME_MESSAGES.limit(4))
    user = a_user()
    one, two, kept = a_session(user), a_session(user), a_session(user)
    turns = [done(session, position, key=new_id()) for session in (one, two) for position in range(1, 6)]
    stays = done(kept)
    await keep(store, user, one, two, *turns)
    await delete(store, deletion := a_deletion(user))
    await keep(store, kept, stays)

    assert await erased(store, deletion) > 2
    assert await erased(store, deletion) == 0

    assert await turn_of(store, stays) == stays
    assert await undo(store, deletion) == 0
    for turn in turns:
        assert await store.read(lambda tx, each=turn: tx.turns.find_by_key(each.reply.key or "", user.id)) is None  # type: ignore[misc]
    await keep(store, one, two, *turns)  # no row of theirs is in the way


async def test_what_was_undone_is_not_erased_when_its_time_is_over(store: AnyStore) -> None:
    user = a_user()
    await keep(store, user, session := a_session(user), turn := done(session))
    await delete(store, deletion := a_deletion(user, session))
    await undo(store, deletion)
    assert await overdue(store, NOW + WEEK) == deletion.id
    assert await erased(store, deletion) == 0
    assert await turn_of(store, turn) == turn


async def test_undoing_and_erasing_wait_for_each_other(store: AnyStore) -> None:
    user = a_user()
    await keep(store, user, session := a_session(user), turn := done(session))
    await delete(store, deletion := a_deletion(user, session))
    held, go_on = asyncio.Event(), asyncio.Event()

    async def undo_slowly(tx: Transaction) -> None:
        assert await tx.deletions.hold(deletion.id, user.id)
        held.set()
        await go_on.wait()
        await tx.deletions.undo(deletion)

    async def erase(tx: Transaction) -> None:
        if due := await tx.erasures.overdue(NOW + WEEK):
            await tx.erasures.erase_deletion(due)

    undoing = asyncio.create_task(store.write(undo_slowly))
    await held.wait()
    purging = asyncio.create_task(store.write(erase))
    assert not (await asyncio.wait({purging}, timeout=0.2))[0], "it waits"
    go_on.set()
    await asyncio.gather(undoing, purging)
    assert await turn_of(store, turn) == turn


async def test_a_deleted_account_leaves_nothing_and_its_openid_is_free(store: AnyStore) -> None:
    user, other = a_user(), a_user()
    one, two, foreign = a_session(user), a_session(user), a_session(other)
    turn, stays = done(one, key="k"), done(foreign, key="k")
    login, kept_login = a_login(user), a_login(other)
    await keep(store, user, other, one, two, foreign, turn, stays, done(one, 2, key="gone"))
    await store.write(lambda tx: tx.turns.delete(one.id, 2, NOW))
    for each in (login, kept_login):
        await store.write(lambda tx, each=each: tx.logins.add(each))  # type: ignore[misc]
    await delete(store, deletion := a_deletion(user, two))

    assert await store.write(lambda tx: tx.erasures.begin(user.id, NOW))
    assert not await store.write(lambda tx: tx.erasures.begin(user.id, NOW))

    assert await store.read(lambda tx: tx.users.find(user.openid)) is None
    assert await store.read(lambda tx: tx.logins.find(login.id)) is None
    assert not await store.write(lambda tx: tx.users.revise(user.id))
    assert not await store.write(lambda tx: tx.users.hold(user.id))
    await keep(store, a_user(openid=user.openid))
    assert await store.read(lambda tx: tx.erasures.unfinished(NOW)) is None
    assert await store.read(lambda tx: tx.erasures.unfinished(NOW + SECOND)) == user.id
    while await store.write(lambda tx: tx.erasures.erase_account(user.id)):
        pass
    assert await store.read(lambda tx: tx.erasures.unfinished(NOW + SECOND)) is None
    assert await turn_of(store, turn) is None
    assert await store.write(lambda tx: tx.deletions.hold(deletion.id, user.id)) is None
    for key in ("k", "gone"):
        assert await store.read(lambda tx, key=key: tx.turns.find_by_key(key, user.id)) is None  # type: ignore[misc]
    await keep(store, user_again := a_user(id=user.id), one, two, turn)  # no row of theirs is in the way
    assert await turn_of(store, stays) == stays
    assert await store.read(lambda tx: tx.logins.find(kept_login.id)) == (kept_login, other)
    assert await store.write(lambda tx: tx.users.hold(user_again.id))


@pytest.mark.parametrize("claims", ["a new session", "a session", "a login"])
async def test_whoever_adds_something_waits_for_the_deletion_of_the_account_and_then_cannot(
    store: AnyStore, claims: str
) -> None:
    user = a_user()
    await keep(store, user, session := a_session(user))
    gone, go_on = asyncio.Event(), asyncio.Event()

    async def begin_slowly(tx: Transaction) -> None:
        assert await tx.erasures.begin(user.id, NOW)
        gone.set()
        await go_on.wait()

    async def claim(tx: Transaction) -> bool:
        if claims == "a new session":
            return await tx.users.revise(user.id)
        if claims == "a login":
            return await tx.users.hold(user.id)
        try:
            await tx.sessions.touch(session.id, user.id, NOW)
        except SessionNotFound:
            return False
        return True

    deleting = asyncio.create_task(store.write(begin_slowly))
    await gone.wait()
    claiming = asyncio.create_task(store.write(claim))
    assert not (await asyncio.wait({claiming}, timeout=0.2))[0], "it waits"
    go_on.set()
    await deleting
    assert await claiming is False


@pytest.mark.parametrize("claims", ["a new session", "a session", "a login"])
async def test_the_deletion_of_an_account_waits_for_whoever_adds_something_and_erases_that_too(
    store: AnyStore, claims: str
) -> None:
    user = a_user()
    await keep(store, user, known := a_session(user))
    session = a_session(user) if claims == "a new session" else known
    turn, login = a_turn(session), a_login(user)
    added, go_on = asyncio.Event(), asyncio.Event()

    async def claim_slowly(tx: Transaction) -> None:
        if claims == "a login":
            assert await tx.users.hold(user.id)
            await tx.logins.add(login)
        elif claims == "a new session":
            assert await tx.users.revise(user.id)
            await tx.sessions.add(session)
        else:
            await tx.sessions.touch(session.id, user.id, NOW)
        added.set()
        await go_on.wait()
        await tx.turns.add(turn)

    claiming = asyncio.create_task(store.write(claim_slowly))
    await added.wait()
    deleting = asyncio.create_task(store.write(lambda tx: tx.erasures.begin(user.id, NOW)))
    assert not (await asyncio.wait({deleting}, timeout=0.2))[0], "it waits"
    go_on.set()
    await claiming
    assert await deleting
    while await store.write(lambda tx: tx.erasures.erase_account(user.id)):
        pass
    await keep(store, user, known, turn)  # no row of theirs is in the way
    await store.write(lambda tx: tx.logins.add(login))


async def test_nobody_is_erased_whose_account_was_not_deleted(store: AnyStore) -> None:
    assert not await store.write(lambda tx: tx.erasures.begin(new_id(), NOW))
    assert await store.read(lambda tx: tx.erasures.unfinished(NOW + WEEK)) is None


# --- Jobs -----------------------------------------------------------------------------------------------------------


async def test_a_job_is_one_owners_until_his_time_is_over(store: AnyStore) -> None:
    one, two = new_id(), new_id()

    async def takes(owner: str, seconds: int, name: str = "purge") -> bool:
        now = NOW + seconds * SECOND
        return await store.write(lambda tx: tx.jobs.take(name, owner, now, now + 10 * SECOND))

    assert await takes(one, 0)
    assert not await takes(two, 9)
    assert await takes(two, 9, "another job")
    assert await takes(one, 9), "its owner goes on, and so on"
    assert not await takes(two, 18)
    assert await takes(two, 19)
    assert not await takes(one, 20)


async def test_of_many_who_take_a_job_at_once_one_gets_it(store: AnyStore) -> None:
    async def take(now: datetime) -> bool:
        owner = new_id()
        return await store.write(lambda tx: tx.jobs.take("purge", owner, now, now + SECOND))

    for now in (NOW, NOW + WEEK):  # when there is no row yet, and when it is there
        assert sum(await asyncio.gather(*(take(now) for _ in range(10)))) == 1
