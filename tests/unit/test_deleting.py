"""Deleting, undoing, erasing and purging where the database fails, or something comes in between."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import timedelta

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.adapters.persistence import memory_erasing
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.domain.errors import (
    LoginCodeInvalid,
    LoginEnded,
    MessageNotFound,
    SessionNotFound,
    StoreUnavailable,
    TooManyReads,
    UndoExpired,
    WrongAccount,
)
from chatassist.domain.model import Preferences, Profile, User
from chatassist.domain.ports.erasing import Deletion
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.services.deletions import CAN_BE_UNDONE, Restored
from chatassist.domain.turns import Status, Turn
from chatassist.domain.upkeep import FINISH_ERASING, LEADING
from tests.builders import a_session, a_turn, new_id
from tests.unit.worlds import Fault, TalkingFeed, World, until

WEEK = CAN_BE_UNDONE.total_seconds()
CODE = "dev:anna"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody(CODE)


def session_of(turn: Turn) -> str:
    return turn.message.session_id


def kept(world: World, *but: str) -> dict[str, str]:
    """What the database holds, by table; tables that are empty are left out."""
    inner = world.store.inner
    assert isinstance(inner, MemoryStore)
    held = {table.name: dict(getattr(inner._tables, table.name)) for table in fields(inner._tables)}
    return {name: str(rows) for name, rows in held.items() if rows and name not in but}


# --- Deleting and undoing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT])
@pytest.mark.parametrize("everything", [False, True])
async def test_a_deletion_whose_commit_was_lost_happens_once(
    world: World, anna: User, fault: Fault, everything: bool
) -> None:
    turn = await world.ask(anna)
    world.store.faults.append(fault)

    deleted = await (world.deletions.clear(anna) if everything else world.deletions.delete(anna, session_of(turn)))

    assert deleted
    assert (deleted.sessions, deleted.messages) == (1, 2)
    assert await world.deletions.restore(anna, deleted.id) == Restored(sessions=1, messages=2)
    assert await world.kept(turn) == turn


async def test_while_the_database_is_away_nothing_is_deleted(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    world.store.faults.append(Fault.AWAY)
    with pytest.raises(StoreUnavailable):
        await world.deletions.delete(anna, session_of(turn))
    assert await world.kept(turn) == turn


async def test_a_reply_that_begins_while_its_session_is_deleted_is_ended_with_it(world: World, anna: User) -> None:
    world.vendor.script = plays("so far", asyncio.Event())
    first = (await world.send(anna)).turn
    stopper = world.deletions._stopper
    stop_all, late = stopper.stop_all, []

    async def and_another_begins(turns: object) -> None:
        await stop_all(turns)  # type: ignore[arg-type]
        late.append((await world.send(anna, session_id=session_of(first))).turn)

    with pytest.MonkeyPatch.context() as between:
        between.setattr(stopper, "stop_all", and_another_begins)
        deleted = await world.deletions.delete(anna, session_of(first))

    assert deleted.messages == 4
    await until(lambda: not world.vendor.speaking)
    with pytest.raises(MessageNotFound):
        await world.get(anna, late[0].reply.id)
    await world.deletions.restore(anna, deleted.id)
    assert (await world.get(anna, late[0].reply.id)).reply.status is Status.STOPPED
    assert (await world.store.read(lambda tx: tx.sessions.get(session_of(first), anna.id))).running == 0


async def test_whoever_makes_such_a_reply_elsewhere_is_asked_to_stop(anna: User, world: World) -> None:
    feed = TalkingFeed()
    async with World(beside=world, feed=feed) as here:
        turn = a_turn(session := a_session(anna, running=1), instance_id=await world.lease.ensure())

        async def begins(tx: Transaction) -> None:
            await tx.sessions.add(session)
            await tx.turns.add(turn)

        await world.store.write(begins)
        with pytest.MonkeyPatch.context() as late:
            late.setattr(here.deletions._stopper, "stop_all", lambda _: asyncio.sleep(0))
            await here.deletions.delete(anna, session.id)
        assert await anext(feed.stop_requests()) == turn.reply.id
        await world.engine.look_for_stopped()


async def test_what_runs_in_other_sessions_goes_on(world: World, anna: User) -> None:
    world.vendor.script = plays("so far", asyncio.Event())
    one, two = (await world.send(anna)).turn, (await world.send(anna)).turn

    await world.deletions.delete(anna, session_of(one))

    assert (await world.get(anna, two.reply.id)).reply.status is Status.RUNNING


async def test_the_list_of_a_user_shows_what_is_deleted_and_restored(world: World, anna: User) -> None:
    turn = await world.ask(anna)

    async def revision() -> int:
        user = await world.store.read(lambda tx: tx.users.find_by_id(anna.id))
        return user.revision if user else 0

    before = await revision()
    deleted = await world.deletions.delete(anna, session_of(turn))
    after = await revision()
    await world.deletions.restore(anna, deleted.id)
    assert before < after < await revision()


async def test_undoing_ends_to_the_microsecond_when_it_said(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    deleted = await world.deletions.delete(anna, session_of(turn))
    assert deleted.until == world.clock() + CAN_BE_UNDONE
    world.clock.now = deleted.until
    with pytest.raises(UndoExpired):
        await world.deletions.restore(anna, deleted.id)
    world.clock.now = deleted.until - timedelta(microseconds=1)
    assert await world.deletions.restore(anna, deleted.id) == Restored(sessions=1, messages=2)


async def test_deleting_counts_as_reading() -> None:
    async with World(limits={Rule.READS: 1}) as world:
        anna = await world.somebody("anna")
        await world.deletions.clear(anna)
        for refused in (
            world.deletions.clear(anna),
            world.deletions.delete(anna, new_id()),
            world.deletions.restore(anna, new_id()),
            world.accounts.delete(anna, CODE),
        ):
            with pytest.raises(TooManyReads):
                await refused


# --- Purging --------------------------------------------------------------------------------------------------------


async def test_the_purge_erases_what_is_overdue_and_nothing_else(world: World, anna: User) -> None:
    over, restored, later, stays = [await world.ask(anna) for _ in range(4)]
    await world.deletions.delete(anna, session_of(over))
    undone = await world.deletions.delete(anna, session_of(restored))
    await world.deletions.restore(anna, undone.id)
    world.clock.advance(1)
    open_still = await world.deletions.delete(anna, session_of(later))
    world.clock.advance(WEEK - 1)

    await world.upkeep.purge()
    await world.upkeep.purge()

    held = kept(world)
    assert over.reply.id not in held["turns"]
    assert session_of(over) not in held["sessions"]
    assert set(held["deletions"].split("'")) >= {open_still.id}
    assert await world.deletions.restore(anna, open_still.id) == Restored(sessions=1, messages=2)
    for turn in (restored, later, stays):
        assert await world.kept(turn) == turn
    with pytest.raises(SessionNotFound):
        await world.deletions.delete(anna, session_of(over))


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT])
async def test_a_purge_that_breaks_off_is_finished_by_the_next(
    world: World, anna: User, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_erasing, "PORTION", 2)
    for _ in range(12):
        await world.ask(anna)
    await world.deletions.clear(anna)
    world.clock.advance(WEEK)
    await world.lease.renew()
    for good in range(3):  # portions before the fault
        world.store.faults.extend([*[None] * good, fault])
        with pytest.raises(StoreUnavailable):
            await world.upkeep.purge()
        world.store.faults.clear()

    await world.upkeep.purge()

    assert not kept(world, "users", "openids", "usages", "instances", "jobs")


async def test_one_process_purges_and_when_it_is_gone_another(world: World, anna: User) -> None:
    async def something_due() -> Deletion:
        turn = await world.ask(anna)
        deletion = await world.deletions.delete(anna, session_of(turn))
        await world.store.write(lambda tx: tx.deletions.add(replace(deletion, id=new_id())))
        return deletion

    async with World(beside=world) as other:
        await world.upkeep.purge()
        due = await something_due()
        world.clock.advance(WEEK)
        await other.upkeep.purge()  # the time of the first one is over: this one leads
        assert due.id not in kept(world).get("deletions", "")
        due = await something_due()
        for _ in range(3):
            world.clock.now = max(world.clock.now, due.until)
            await other.lease.renew()
            await other.upkeep.purge()
        assert due.id not in kept(world).get("deletions", "")

        due = await something_due()
        world.clock.now = due.until
        await other.lease.renew()
        await other.upkeep.purge()
        late = await something_due()
        world.clock.advance(LEADING.total_seconds() - 1)
        await world.store.write(lambda tx: _make_due(tx, late, world))
        await world.upkeep.purge()
        assert late.id in kept(world)["deletions"], "it is the other's"
        world.clock.advance(1)
        await world.upkeep.purge()
        assert late.id not in kept(world).get("deletions", "")


async def _make_due(tx: Transaction, deletion: Deletion, world: World) -> None:
    inner = world.store.inner
    assert isinstance(inner, MemoryStore)
    inner._tables.deletions[deletion.id] = replace(deletion, until=world.clock())


# --- Accounts -------------------------------------------------------------------------------------------------------


async def test_only_whoever_it_belongs_to_deletes_an_account(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    for code, refused in (("dev:boris", WrongAccount), ("nonsense", LoginCodeInvalid)):
        with pytest.raises(refused):
            await world.accounts.delete(anna, code)
    assert await world.kept(turn) == turn


async def test_of_a_deleted_account_nothing_is_left_but_what_was_used(world: World, anna: User) -> None:
    signed = await world.users.login(CODE, Profile(), None)
    for key in ("k-1", "k-2"):
        turn = await world.ask(anna, key=key)
    await world.replies.delete(anna, turn.reply.id)
    await world.deletions.clear(anna)
    unsaved = await world.ask(replace(anna, preferences=Preferences(save_history=False)), key="k-3")

    await world.accounts.delete(anna, CODE)

    assert set(kept(world)) == {"usages", "instances"}
    with pytest.raises(LoginEnded):
        await world.users.authenticate(signed.token)
    with pytest.raises(MessageNotFound):
        await world.get(anna, unsaved.reply.id)
    with pytest.raises(LoginEnded):
        await world.accounts.delete(anna, CODE)
    with pytest.raises(LoginEnded):
        await world.send(anna)
    with pytest.raises(SessionNotFound):
        await world.send(anna, session_id=session_of(turn))
    assert set(kept(world)) == {"usages", "instances"}


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT])
async def test_an_account_whose_deletion_lost_its_commit_is_gone(world: World, anna: User, fault: Fault) -> None:
    await world.ask(anna)
    world.store.faults.append(fault)
    await world.accounts.delete(anna, CODE)
    assert set(kept(world)) == {"usages", "instances"}


async def test_while_the_database_is_away_no_account_is_deleted(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    world.store.faults.append(Fault.AWAY)
    with pytest.raises(StoreUnavailable):
        await world.accounts.delete(anna, CODE)
    assert await world.kept(turn) == turn
    assert await world.somebody(CODE) == await world.store.read(lambda tx: tx.users.find_by_id(anna.id))


async def test_what_could_not_be_erased_at_once_the_purge_erases(world: World, anna: User) -> None:
    await world.ask(anna)
    world.store.faults.extend([None, Fault.AWAY])

    await world.accounts.delete(anna, CODE)

    assert set(kept(world)) >= {"erasures", "sessions", "turns"}
    await world.upkeep.purge()
    assert "erasures" in kept(world), "whoever deletes it is given time"
    world.clock.advance(FINISH_ERASING.total_seconds() + VALID_SECONDS + LEADING.total_seconds())
    await world.upkeep.purge()
    assert set(kept(world)) == {"usages", "instances", "jobs"}


async def test_a_login_for_whom_the_account_is_gone_meanwhile_makes_a_new_one(world: World, anna: User) -> None:
    ensure, begun = world.users.ensure, False

    async def and_then_it_is_deleted(openid: str, profile: Profile | None = None) -> User:
        nonlocal begun
        user = await ensure(openid, profile)
        if not begun:
            begun = True
            await world.accounts.delete(user, CODE)
        return user

    with pytest.MonkeyPatch.context() as between:
        between.setattr(world.users, "ensure", and_then_it_is_deleted)
        signed = await world.users.login(CODE, Profile(), None)
    assert signed.user.id != anna.id
    assert (await world.users.authenticate(signed.token)).user == signed.user
