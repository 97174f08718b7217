"""What the memory stores stand on: units that change all or nothing, and sessions that are forgotten."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatassist.adapters.persistence.ephemeral import EphemeralStore
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.adapters.persistence.memory_tables import Overlay
from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Session
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Turn
from tests.builders import NOW, a_session, a_turn, a_user
from tests.unit.worlds import HandClock

# --- A unit of work writes to a mapping over the kept one -----------------------------------------------------------

keys, values = st.sampled_from("abcd"), st.integers(0, 9)
changes = st.lists(st.tuples(keys, st.none() | values), max_size=12)


@settings(max_examples=60, deadline=None, database=None)
@given(kept=st.dictionaries(keys, values), changes=changes)
def test_an_overlay_is_the_mapping_that_its_changes_make_and_the_one_below_is_so_only_once_merged(
    kept: dict[str, int], changes: list[tuple[str, int | None]]
) -> None:
    below, expected = dict(kept), dict(kept)
    overlay = Overlay(below)

    for key, value in changes:
        if value is not None:
            overlay[key] = expected[key] = value
        elif key in expected:
            del overlay[key], expected[key]
        else:
            with pytest.raises(KeyError):
                del overlay[key]
        assert dict(overlay) == expected
        assert (len(overlay), sorted(overlay)) == (len(expected), sorted(expected))
        assert [overlay.get(each) for each in "abcd"] == [expected.get(each) for each in "abcd"]

    assert below == kept
    overlay.merge()
    assert below == expected


async def test_a_unit_that_fails_changes_nothing_and_no_reader_sees_one_half_done() -> None:
    store, user = MemoryStore(), a_user()
    kept, new = a_session(user), a_session(user)
    await store.write(lambda tx: tx.sessions.add(kept))
    under_way, fail = asyncio.Event(), asyncio.Event()

    async def work(tx: Transaction) -> None:
        await tx.sessions.add(new)
        await tx.sessions.touch(kept.id, user.id, NOW, turns=5)
        await tx.users.add(user)
        under_way.set()
        await fail.wait()
        raise ZeroDivisionError

    writing = asyncio.create_task(store.write(work))
    await under_way.wait()
    for _ in range(2):
        with pytest.raises(SessionNotFound):
            await store.read(lambda tx: tx.sessions.get(new.id, user.id))
        assert await store.read(lambda tx: tx.sessions.get(kept.id, user.id)) == kept
        assert await store.read(lambda tx: tx.users.find(user.openid)) is None
        fail.set()
        await asyncio.gather(writing, return_exceptions=True)
    assert isinstance(writing.exception(), ZeroDivisionError)


# --- A store that forgets -------------------------------------------------------------------------------------------


class Forgetful:
    """A store that forgets after a minute, or when it holds more than three sessions."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = EphemeralStore(self.clock, idle=timedelta(minutes=1), sessions=3)
        self.user = a_user()

    async def opens(self, **reply: Any) -> Turn:
        """Open a session with a turn in it."""
        now = self.clock()
        session = a_session(self.user, turns=1, created_at=now, updated_at=now, saved=False)
        turn = a_turn(session, **reply)

        async def work(tx: Transaction) -> None:
            await tx.sessions.add(session)
            await tx.turns.add(turn)

        await self.store.write(work)
        return turn

    async def touches(self, turn: Turn, *, uses: bool = True) -> None:
        session_id, user_id = turn.message.session_id, self.user.id
        if uses:
            await self.store.write(lambda tx: tx.sessions.touch(session_id, user_id, self.clock()))
        else:
            await self.store.write(lambda tx: tx.sessions.hold(session_id, user_id))

    async def knows(self, turn: Turn) -> bool:
        async def look(tx: Transaction) -> tuple[Turn | None, Session | None, int]:
            found = await tx.turns.find(turn.reply.id, self.user.id)
            versions = await tx.turns.versions(turn.message.session_id, 1)
            try:
                return found, await tx.sessions.get(turn.message.session_id, self.user.id), len(versions)
            except SessionNotFound:
                return found, None, len(versions)

        found, session, versions = await self.store.read(look)
        assert (found is None) == (session is None) == (versions == 0)
        return found is not None


async def test_a_session_is_forgotten_after_its_time_with_all_in_it() -> None:
    forgetful = Forgetful()
    turn = await forgetful.opens(key="k")

    forgetful.clock.advance(59.999)
    assert await forgetful.knows(turn)

    forgetful.clock.advance(0.001)
    assert not await forgetful.knows(turn)
    assert await forgetful.store.read(lambda tx: tx.turns.find_by_key("k", forgetful.user.id)) is None
    await forgetful.opens(key="k")


async def test_using_a_session_prolongs_it_and_holding_it_does_not() -> None:
    forgetful = Forgetful()
    held, used = await forgetful.opens(), await forgetful.opens()
    forgetful.clock.advance(30)
    await forgetful.touches(used)
    await forgetful.touches(held, uses=False)

    forgetful.clock.advance(30)

    assert (await forgetful.knows(held), await forgetful.knows(used)) == (False, True)
    forgetful.clock.advance(30)
    assert not await forgetful.knows(used)


async def test_of_too_many_sessions_the_longest_idle_goes_first() -> None:
    forgetful = Forgetful()
    one, two, three = [await forgetful.opens() for _ in range(3)]
    forgetful.clock.advance(1)
    await forgetful.touches(one)

    four = await forgetful.opens()

    assert [await forgetful.knows(turn) for turn in (one, two, three, four)] == [True, False, True, True]


async def test_a_unit_that_began_in_time_is_not_robbed_of_its_session() -> None:
    forgetful = Forgetful()
    turn = await forgetful.opens()
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def work(tx: Transaction) -> None:
        under_way.set()
        await go_on.wait()
        await tx.sessions.touch(turn.message.session_id, forgetful.user.id, forgetful.clock())

    forgetful.clock.advance(59)
    writing = asyncio.create_task(forgetful.store.write(work))
    await under_way.wait()
    forgetful.clock.advance(2)
    assert await forgetful.knows(turn)
    go_on.set()
    await writing

    assert await forgetful.knows(turn)


async def test_a_spent_key_is_known_as_long_as_any_other() -> None:
    forgetful = Forgetful()
    turn = await forgetful.opens(key="k")
    deleted_at = forgetful.clock()
    await forgetful.store.write(lambda tx: tx.turns.delete(turn.message.session_id, 1, deleted_at))
    assert str(forgetful.store._tables).count("'k'") == 1

    forgetful.clock.advance(60)
    forgetful.store.forget()

    assert "'k'" not in str(forgetful.store._tables)
