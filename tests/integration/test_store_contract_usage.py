"""What every store promises about use: each message and each token counts once, on the day it belongs to."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Session
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import FinishReason, Status, Usage
from chatassist.domain.usage import ONE_MESSAGE, Calendar, Meter, Metering, Used
from tests.builders import NOW, a_session, a_turn, a_user, an_end, new_id
from tests.fixtures.databases import AnyStore
from tests.integration.storing import a_kept_session, keep, opened

TODAY = Meter(subject="somebody", day=date(2026, 11, 22))
SPENT = Usage(input_tokens=100, output_tokens=7)
TOKENS = Used(input_tokens=100, output_tokens=7)


async def used(store: AnyStore, meter: Meter = TODAY) -> Used:
    return await store.read(lambda tx: tx.usages.find(meter))


async def test_nothing_is_used_until_it_is_counted_and_then_all_adds_up(store: AnyStore) -> None:
    assert await used(store) == Used()
    for more in (Used(messages=1), Used(input_tokens=2**40, audio_ms=1), Used(output_tokens=3, audio_ms=2**40)):
        await store.apply(lambda tx, more=more: tx.usages.count(TODAY, more))  # type: ignore[misc]
    assert await used(store) == Used(messages=1, input_tokens=2**40, output_tokens=3, audio_ms=2**40 + 1)
    for other in (
        Meter(subject="Somebody", day=TODAY.day),
        Meter(subject=TODAY.subject, day=TODAY.day + timedelta(days=1)),
    ):
        assert await used(store, other) == Used()


async def test_fifty_counts_at_once_on_a_day_that_has_not_begun_are_fifty(store: AnyStore) -> None:
    more = Used(messages=1, input_tokens=2, output_tokens=3, audio_ms=4)
    for day in range(3):
        meter = Meter(subject="somebody", day=TODAY.day + timedelta(days=day))
        counts = [store.apply(lambda tx, meter=meter: tx.usages.count(meter, more)) for _ in range(50)]  # type: ignore[misc]
        await asyncio.gather(*counts)
        assert await used(store, meter) == Used(messages=50, input_tokens=100, output_tokens=150, audio_ms=200)


async def test_fifty_units_at_once_that_begin_a_day_all_happen(store: AnyStore) -> None:
    """In sessions of their own, as a user's claims may be, some of them with a new one."""
    user = a_user()
    sessions = [a_session(user) for _ in range(5)]
    await keep(store, user, *sessions)

    async def touch(tx: Transaction, session: Session) -> None:
        await tx.sessions.touch(session.id, session.user_id, NOW, meter=TODAY)

    async def open_one(tx: Transaction, session: Session) -> None:
        await tx.users.revise(session.user_id)
        await tx.usages.count(TODAY, ONE_MESSAGE)

    works = [partial(work, session=session) for session in sessions for work in (touch, open_one) for _ in range(5)]
    await asyncio.gather(*(store.write(work) for work in works))
    assert await used(store) == Used(messages=50)


async def test_a_reply_that_begins_is_one_message_more_unless_its_session_is_not_there(store: AnyStore) -> None:
    session = await a_kept_session(store)
    for _ in range(3):  # the first begins the day
        await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW, meter=TODAY))
    with pytest.raises(SessionNotFound):
        await store.write(lambda tx: tx.sessions.touch(new_id(), session.user_id, NOW, meter=TODAY))
    other = Meter(subject="nobody", day=TODAY.day)
    with pytest.raises(SessionNotFound):
        await store.write(lambda tx: tx.sessions.touch(new_id(), session.user_id, NOW, meter=other))

    assert await used(store) == Used(messages=3)
    assert await used(store, other) == Used()
    known = await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))
    assert (known.turns, known.running) == (session.turns + 3, session.running + 3)


async def test_two_servers_that_begin_a_day_with_many_at_once_lose_nothing(mysql: URL) -> None:
    """More connections than one process has, so that they really meet."""
    async with opened(mysql, pool_size=25) as one, opened(mysql, pool_size=25) as other:

        async def unit(tx: Transaction) -> None:
            await tx.usages.count(TODAY, Used(messages=1))
            await asyncio.sleep(0)

        await asyncio.gather(*(store.write(unit) for store in (one, other) for _ in range(50)))
        assert await used(one) == Used(messages=100)


async def test_a_unit_that_fails_counts_nothing(store: AnyStore) -> None:
    async def work(tx: Transaction) -> None:
        await tx.usages.count(TODAY, Used(messages=1))
        raise ZeroDivisionError

    for _ in range(2):
        try:
            await store.write(work)
        except ZeroDivisionError:
            continue
    assert await used(store) == Used()


async def test_a_day_begins_and_ends_where_the_operators_zone_says(store: AnyStore) -> None:
    metering = Metering(str.upper, Calendar(ZoneInfo("Asia/Shanghai")))
    midnight = datetime(2026, 11, 22, 16, tzinfo=UTC)
    for at in (midnight - timedelta(microseconds=1), midnight, midnight + timedelta(hours=23, minutes=59)):
        await store.apply(lambda tx, at=at: tx.usages.count(metering.meter("anna", at), Used(messages=1)))  # type: ignore[misc]
    days = [await used(store, Meter(subject="ANNA", day=date(2026, 11, day))) for day in (21, 22, 23, 24)]
    assert [day.messages for day in days] == [0, 1, 2, 0]
    assert metering.calendar.end(date(2026, 11, 22)) == midnight


async def test_the_tokens_of_a_reply_count_once_however_often_its_end_is_told(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await store.apply(lambda tx: tx.usages.count(TODAY, Used(messages=1)))
    await keep(store, turn := a_turn(session))
    end = an_end(usage=SPENT)

    async def finish() -> bool:
        return await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 0, end, meter=TODAY))

    assert sorted(await asyncio.gather(*(finish() for _ in range(10)))) == [False] * 9 + [True]
    assert await used(store) == Used(messages=1) + TOKENS


async def test_tokens_count_whatever_ended_the_reply_if_the_vendor_told_them(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await store.apply(lambda tx: tx.usages.count(TODAY, Used(messages=4)))
    ends = (
        an_end(usage=SPENT),
        an_end(usage=SPENT, status=Status.STOPPED, finish_reason=FinishReason.STOPPED),
        an_end(None, usage=SPENT, status=Status.FAILED, finish_reason=FinishReason.ERROR, reason="internal"),
        an_end(status=Status.STOPPED, finish_reason=FinishReason.STOPPED),  # cut before the vendor told
    )
    for position, end in enumerate(ends, 1):
        await keep(store, turn := a_turn(session, position))
        finished = store.apply(
            lambda tx, turn=turn, end=end: tx.replies.finish(turn.reply.id, 0, end, meter=TODAY)  # type: ignore[misc]
        )
        assert await finished
    assert await used(store) == Used(messages=4) + TOKENS + TOKENS + TOKENS


async def test_of_an_attempt_that_somebody_else_ended_nothing_is_counted(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await store.apply(lambda tx: tx.usages.count(TODAY, Used(messages=1)))
    await keep(store, turn := a_turn(session))
    stop = an_end(None, status=Status.STOPPED, finish_reason=FinishReason.STOPPED)
    assert await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 0, stop))
    late = an_end(usage=SPENT)
    assert not await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 0, late, meter=TODAY))
    assert not await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 1, late, meter=TODAY))
    assert await used(store) == Used(messages=1)


async def test_a_reply_ends_even_where_its_day_is_missing(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, turn := a_turn(session, created_at=NOW))
    end = an_end(usage=SPENT)
    assert await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 0, end, meter=TODAY))
    found = await store.read(lambda tx: tx.turns.find(turn.reply.id, session.user_id))
    assert found is not None
    assert found.reply.usage == SPENT
    assert await used(store) == TOKENS, "it begins with them"
