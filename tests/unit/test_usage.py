"""What a user used today: by the operator's day, and never a reason to fail."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from chatassist.domain.errors import ContentBlocked, SessionNotFound, TooManyReads
from chatassist.domain.ports.limits import Rule
from chatassist.domain.services.usage import Today
from chatassist.domain.usage import Calendar, Used
from tests.builders import new_id
from tests.unit.worlds import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(refused_words=["bad"], limits={Rule.READS: 3}) as world:
        yield world


async def test_today_ends_at_midnight_of_the_operators_zone_told_in_utc(world: World) -> None:
    anna = await world.somebody()

    today = await world.usage.today(anna)

    assert today == Today(day=date(2026, 11, 22), used=Used(), resets_at=datetime(2026, 11, 22, 16, tzinfo=UTC))
    assert today.resets_at.tzinfo is UTC
    world.clock.now = today.resets_at
    assert (await world.usage.today(anna)).day == date(2026, 11, 23)


async def test_what_is_counted_shows_until_the_day_is_over(world: World) -> None:
    anna = await world.somebody()
    for _ in range(2):
        await world.usage.count(anna.openid, Used(audio_ms=1500))

    assert (await world.usage.today(anna)).used == Used(audio_ms=3000)
    world.clock.now = datetime(2026, 11, 22, 16, tzinfo=UTC)
    assert (await world.usage.today(anna)).used == Used()


async def test_a_message_counts_on_the_day_it_was_accepted(world: World) -> None:
    anna = await world.somebody()

    await world.ask(anna)
    world.clock.now = datetime(2026, 11, 22, 16, tzinfo=UTC)
    await world.ask(anna)

    assert (await world.usage.today(anna)).used.messages == 1


async def test_what_moderation_or_ownership_refuses_does_not_count(world: World) -> None:
    anna = await world.somebody()

    with pytest.raises(ContentBlocked):
        await world.send(anna, "bad")
    with pytest.raises(SessionNotFound):
        await world.send(anna, "hello", session_id=new_id())

    assert (await world.usage.today(anna)).used == Used()


async def test_a_database_that_is_away_fails_no_count(world: World, caplog: pytest.LogCaptureFixture) -> None:
    anna = await world.somebody()
    world.store.away = True

    await world.usage.count(anna.openid, Used(audio_ms=1500))

    assert "use was not counted" in caplog.messages


async def test_looking_is_limited(world: World) -> None:
    anna = await world.somebody()
    for _ in range(3):
        await world.usage.today(anna)

    with pytest.raises(TooManyReads):
        await world.usage.today(anna)


@pytest.mark.parametrize(
    ("zone", "day", "end"),
    [
        ("Asia/Shanghai", date(2026, 11, 22), datetime(2026, 11, 22, 16, tzinfo=UTC)),
        ("America/New_York", date(2026, 3, 8), datetime(2026, 3, 9, 4, tzinfo=UTC)),  # a day of 23 hours
        ("America/New_York", date(2026, 11, 1), datetime(2026, 11, 2, 5, tzinfo=UTC)),  # and one of 25
        ("Africa/Cairo", date(2026, 4, 23), datetime(2026, 4, 23, 22, tzinfo=UTC)),  # whose midnight never comes
        ("UTC", date(2026, 12, 31), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_day_ends_where_the_next_one_begins(zone: str, day: date, end: datetime) -> None:
    calendar = Calendar(ZoneInfo(zone))

    assert calendar.end(day).astimezone(UTC) == end
    assert calendar.day(end) > day
    assert calendar.day(end - timedelta(microseconds=1)) == day
