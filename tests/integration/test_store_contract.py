"""What every store promises about units of work and people, over memory, SQLite and both MySQL drivers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Preferences, Session, User, UserChange
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Turn
from tests.builders import NOW, a_login, a_session, a_turn, a_user, new_id
from tests.fixtures.databases import AnyStore, in_redis_too
from tests.integration.storing import a_kept_session, keep

# --- Units of work --------------------------------------------------------------------------------------------------


async def test_a_unit_that_raises_leaves_nothing_and_its_error_reaches_the_caller(store: AnyStore) -> None:
    user = a_user()

    async def work(tx: Transaction) -> None:
        await tx.users.add(user)
        assert await tx.users.find_by_id(user.id) == user  # a unit sees what it wrote
        raise SessionNotFound

    with pytest.raises(SessionNotFound):
        await store.write(work)
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) is None


async def test_a_unit_may_go_on_after_a_value_was_taken(store: AnyStore) -> None:
    await keep(store, first := a_user())

    async def work(tx: Transaction) -> User | None:
        with pytest.raises(Taken):
            await tx.users.add(a_user(openid=first.openid))
        return await tx.users.find(first.openid)

    assert await store.write(work) == first


async def test_a_cancelled_caller_leaves_its_unit_whole_or_absent_and_the_store_usable(store: AnyStore) -> None:
    dice = random.Random(7)  # noqa: S311 - no secret
    pairs = [(user := a_user(), a_session(user)) for _ in range(120)]

    async def send(user: User, session: Session) -> None:
        await keep(store, user, session)

    tasks = [asyncio.create_task(send(*pair)) for pair in pairs]
    for task in dice.sample(tasks, k=len(tasks)):
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await store.aclose()  # lets the cancelled callers' units end

    async def kept(tx: Transaction, user: User, session: Session) -> int:
        found = await tx.users.find_by_id(user.id)
        try:
            return (found is not None) + (await tx.sessions.get(session.id, user.id) == session)
        except SessionNotFound:
            return int(found is not None)

    halves = [await store.read(lambda tx, pair=pair: kept(tx, *pair)) for pair in pairs]  # type: ignore[misc]
    assert set(halves) <= {0, 2}
    assert all(half == 2 for half, result in zip(halves, results, strict=True) if result is None)
    assert any(half == 2 for half, result in zip(halves, results, strict=True) if result is not None)
    await keep(store, a_user())


@in_redis_too
async def test_twenty_claims_in_one_session_get_the_positions_one_to_twenty(store: AnyStore) -> None:
    session = await a_kept_session(store)

    async def claim(tx: Transaction, turn: Turn) -> int:
        await tx.sessions.touch(session.id, session.user_id, NOW)
        await asyncio.sleep(0)  # where another unit could come between
        position = (await tx.turns.window(session.id, 5)).accepted
        await tx.turns.add(replace(turn, message=replace(turn.message, position=position)))
        return position

    turns = [a_turn(session) for _ in range(20)]
    claims = [store.write(lambda tx, turn=turn: claim(tx, turn)) for turn in turns]  # type: ignore[misc]
    assert sorted(await asyncio.gather(*claims)) == list(range(1, 21))
    stored = await store.read(lambda tx: tx.turns.latest(session.id, 50))
    assert [turn.message.position for turn in stored] == list(range(1, 21))


async def test_twenty_first_logins_of_one_openid_make_one_user(store: AnyStore) -> None:
    async def log_in(user: User) -> User | None:
        async def work(tx: Transaction) -> User:
            if known := await tx.users.find(user.openid):
                return known
            await tx.users.add(user)
            return user

        try:
            return await store.write(work)
        except Taken:
            return await store.read(lambda tx: tx.users.find(user.openid))

    found = await asyncio.gather(*(log_in(a_user(openid="one")) for _ in range(20)))
    assert len({user.id for user in found if user}) == 1
    assert None not in found


@in_redis_too
async def test_of_twenty_turns_under_one_key_one_is_stored_and_the_others_learn_it(store: AnyStore) -> None:
    session = await a_kept_session(store)
    turns = [a_turn(session, position, key="k-1") for position in range(1, 21)]
    results = await asyncio.gather(*(keep(store, turn) for turn in turns), return_exceptions=True)
    won = [turn for turn, result in zip(turns, results, strict=True) if result is None]
    assert [type(result) for result in results if result is not None] == [Taken] * 19
    assert await store.read(lambda tx: tx.turns.find_by_key("k-1", session.user_id)) == won[0]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 50)) == won


# --- People ---------------------------------------------------------------------------------------------------------


async def test_a_user_is_found_by_openid_and_id_and_every_change_of_it_is_kept(store: AnyStore) -> None:
    await keep(
        store, user := a_user(nickname="小明👨‍👩‍👧", avatar="https://a/1", preferences=Preferences(auto_read=True))
    )
    assert await store.read(lambda tx: tx.users.find(user.openid)) == user
    changed = replace(user, nickname="", avatar="https://a/2", blocked=True, revision=2)
    for _ in range(2):  # the second time nothing changes
        await store.write(lambda tx: tx.users.change(user.id, UserChange(nickname="", avatar="https://a/2")))
        await store.write(lambda tx: tx.users.set_blocked(user.id, blocked=True))
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == changed
    assert await store.read(lambda tx: tx.users.find_by_id(new_id())) is None


async def test_openids_that_differ_in_case_are_two_people(store: AnyStore) -> None:
    await keep(store, small := a_user(openid="oabc"), large := a_user(openid="oABC"))
    assert await store.read(lambda tx: tx.users.find("oabc")) == small
    assert await store.read(lambda tx: tx.users.find("oABC")) == large
    assert await store.read(lambda tx: tx.users.find("Oabc")) is None


async def test_a_change_of_the_nickname_changes_nothing_else(store: AnyStore) -> None:
    """A login that began before an operator blocked the user must not let him in again."""
    await keep(store, user := a_user(blocked=True, preferences=Preferences(auto_read=True)))
    await store.write(lambda tx: tx.users.change(user.id, UserChange(nickname="n")))
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == replace(user, nickname="n", revision=1)


@pytest.mark.parametrize(
    "change",
    [
        UserChange(nickname="n", avatar="https://a/1", is_dark_mode=False, auto_read=True, save_history=False),
        UserChange(avatar="https://a/2"),
        UserChange(is_dark_mode=False),
        UserChange(auto_read=True, save_history=True),
    ],
)
async def test_a_change_stores_the_fields_that_it_names(store: AnyStore, change: UserChange) -> None:
    user = a_user(nickname="old", avatar="https://a/0", preferences=Preferences(is_dark_mode=True, save_history=False))
    await keep(store, user, other := a_user())
    await store.apply(lambda tx: tx.users.change(user.id, change))
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == user.changed(change)
    await store.apply(lambda tx: tx.users.change(new_id(), change))  # nobody's
    assert await store.read(lambda tx: tx.users.find_by_id(other.id)) == other


async def test_changes_of_different_fields_at_once_all_stay(store: AnyStore) -> None:
    await keep(store, user := a_user())
    changes = (
        UserChange(nickname="n"),
        UserChange(avatar="https://a/1"),
        UserChange(is_dark_mode=True),
        UserChange(auto_read=True),
        UserChange(save_history=False),
    )
    await asyncio.gather(
        *(store.apply(lambda tx, change=change: tx.users.change(user.id, change)) for change in changes)  # type: ignore[misc]
    )
    preferences = Preferences(is_dark_mode=True, auto_read=True, save_history=False)
    expected = replace(user, nickname="n", avatar="https://a/1", preferences=preferences, revision=5)
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == expected


async def test_a_login_comes_with_its_user_until_it_is_ended(store: AnyStore) -> None:
    await keep(store, user := a_user(), other := a_user())
    phone, tablet, foreign = a_login(user), a_login(user), a_login(other)
    for login in (phone, tablet, foreign):
        await store.write(lambda tx, login=login: tx.logins.add(login))  # type: ignore[misc]
    assert await store.read(lambda tx: tx.logins.find(phone.id)) == (phone, user)
    for _ in range(2):
        await store.write(lambda tx: tx.logins.end(phone.id))
    assert await store.read(lambda tx: tx.logins.find(phone.id)) is None
    assert await store.read(lambda tx: tx.logins.find(tablet.id)) == (tablet, user)
    await store.write(lambda tx: tx.logins.end_all(user.id))
    assert await store.read(lambda tx: tx.logins.find(tablet.id)) is None
    assert await store.read(lambda tx: tx.logins.find(foreign.id)) == (foreign, other)


async def test_a_purge_drops_expired_logins_alone_a_thousand_at_a_time(store: AnyStore) -> None:
    await keep(store, user := a_user())
    lasting = a_login(user, expires_at=NOW)

    async def fill(tx: Transaction) -> None:
        await tx.logins.add(lasting)
        for _ in range(1001):
            await tx.logins.add(a_login(user, expires_at=NOW - timedelta(microseconds=1)))

    await store.write(fill)
    assert [await store.write(lambda tx: tx.logins.purge(NOW)) for _ in range(3)] == [1000, 1, 0]
    assert await store.read(lambda tx: tx.logins.find(lasting.id)) == (lasting, user)


async def test_a_store_with_its_schema_passes_the_check(store: AnyStore) -> None:
    await store.check()


async def test_closing_waits_for_the_units_that_nobody_waits_for(store: AnyStore) -> None:
    user, entered, go_on = a_user(), asyncio.Event(), asyncio.Event()

    async def work(tx: Transaction) -> None:
        await tx.users.add(user)
        entered.set()
        await go_on.wait()

    caller = asyncio.create_task(_run(store.write, work))
    await entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    closing = asyncio.create_task(_run(store.aclose))
    await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == user


async def _run(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    await function(*arguments)


async def test_a_change_of_its_own_is_kept_whoever_waits_for_it(store: AnyStore) -> None:
    """A single change needs no unit: it is whole by itself, and goes on when its caller is cancelled."""
    await keep(store, user := a_user())
    await store.apply(lambda tx: tx.users.set_blocked(user.id, blocked=True))
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == replace(user, blocked=True)

    begun = asyncio.Event()

    async def unblock(tx: Transaction) -> None:
        begun.set()
        await tx.users.set_blocked(user.id, blocked=False)

    caller = asyncio.create_task(store.apply(unblock))
    await begun.wait()
    caller.cancel()
    await asyncio.wait({caller})
    await store.write(
        lambda tx: tx.users.change(user.id, UserChange(nickname="n"))
    )  # on SQLite and in memory, its turn comes after
    await store.aclose()
    assert await store.read(lambda tx: tx.users.find_by_id(user.id)) == replace(user, nickname="n", revision=1)


async def test_a_change_that_raises_changes_nothing(store: AnyStore) -> None:
    async def fail(_: Transaction) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.apply(fail)
    await keep(store, a_user())
