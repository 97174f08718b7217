"""What the feed of one process holds, and for how long. What every feed promises stands in its contract suite."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from chatassist.adapters.replies.log import HELD_EVENTS
from chatassist.adapters.replies.memory import HELD_ENDED, HELD_SECONDS, MemoryReplyFeed
from chatassist.domain.ports.replies import Delta, Numbered
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT
from tests.builders import new_id
from tests.fixtures.reply_feeds import ENDED, PATIENCE, letters, now, numbered, reading
from tests.unit.worlds import until


class Hourglass:
    """Keeps what is to be done later, until a test turns it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> "Grain":
        self.waiting.append((seconds, call))
        return Grain(self, (seconds, call))

    def turn(self) -> None:
        for waiting in self.waiting[:]:
            waiting[1]()
        self.waiting.clear()


@dataclass
class Grain:
    """Something that an hourglass keeps."""

    hourglass: Hourglass
    what: tuple[float, Callable[[], None]]

    def cancel(self) -> None:
        if self.what in self.hourglass.waiting:
            self.hourglass.waiting.remove(self.what)


@pytest.fixture
def hourglass() -> Hourglass:
    return Hourglass()


@pytest.fixture
def feed(hourglass: Hourglass) -> MemoryReplyFeed:
    return MemoryReplyFeed(later=hourglass.later)


@pytest.fixture
async def reply(feed: MemoryReplyFeed) -> str:
    """A reply whose feed was just opened."""
    await feed.open(made := new_id(), 0)
    return made


# --- Forgetting -----------------------------------------------------------------------------------------------------


async def test_a_feed_is_forgotten_a_minute_after_its_end_and_not_before(
    feed: MemoryReplyFeed, reply: str, hourglass: Hourglass
) -> None:
    await feed.append(reply, Delta("a"))
    assert hourglass.waiting == []
    await feed.append(reply, ENDED)
    assert await now(feed, reply) == numbered(1, Delta("a"), ENDED)

    assert [seconds for seconds, _ in hourglass.waiting] == [HELD_SECONDS] == [60]
    hourglass.turn()

    assert await now(feed, reply) is None


async def test_a_feed_that_was_opened_again_outlives_the_minute_of_its_earlier_end(
    feed: MemoryReplyFeed, reply: str, hourglass: Hourglass
) -> None:
    await feed.append(reply, ENDED)
    await feed.open(reply, NUMBERS_PER_ATTEMPT)
    await feed.append(reply, Delta("new"))

    hourglass.turn()

    assert await now(feed, reply, NUMBERS_PER_ATTEMPT) == [Numbered(NUMBERS_PER_ATTEMPT + 1, Delta("new"))]
    await feed.append(reply, ENDED)
    assert len(hourglass.waiting) == 1
    hourglass.turn()
    assert await now(feed, reply) is None


async def test_a_feed_that_ended_twice_is_held_for_a_minute_from_its_last_end(
    feed: MemoryReplyFeed, reply: str, hourglass: Hourglass
) -> None:
    await feed.append(reply, ENDED)
    await feed.open(reply, NUMBERS_PER_ATTEMPT)
    await feed.append(reply, ENDED)

    [(seconds, forget)] = hourglass.waiting  # the first end's minute no longer counts
    assert seconds == HELD_SECONDS
    assert await now(feed, reply, NUMBERS_PER_ATTEMPT) == [Numbered(NUMBERS_PER_ATTEMPT + 1, ENDED)]
    forget()
    assert await now(feed, reply) is None


async def test_a_reader_who_waits_while_a_feed_is_forgotten_hears_silence(
    feed: MemoryReplyFeed, reply: str, hourglass: Hourglass
) -> None:
    await feed.append(reply, ENDED)
    reader = asyncio.create_task(feed.read(reply, 1, 0.01))
    await asyncio.sleep(0)
    hourglass.turn()

    assert not await reader
    assert await feed.read(reply, 1, 0) is None


# --- What the memory feed holds -------------------------------------------------------------------------------------


async def test_no_waiter_is_left_behind_by_silence_or_cancellation() -> None:
    feed = MemoryReplyFeed()
    await feed.open(reply := new_id(), 0)

    await feed.read(reply, 0, 0.001)
    gone = await reading(feed, reply, 0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)

    assert not feed._logs[reply].waiters


async def test_no_timer_of_those_who_waited_for_the_end_outlives_it() -> None:
    feed = MemoryReplyFeed()
    await feed.open(reply := new_id(), 0)
    reader = await reading(feed, reply, 0)
    timer = feed._logs[reply].timer
    assert timer is not None

    await feed.append(reply, ENDED)
    await reader

    assert timer.cancelled()


async def test_of_a_long_reply_only_the_last_events_are_held() -> None:
    feed = MemoryReplyFeed()
    await feed.open(reply := new_id(), 0)
    for event in letters(10 * HELD_EVENTS):
        await feed.append(reply, event)

    assert len(feed._logs[reply].events) == HELD_EVENTS
    assert len(await now(feed, reply, 9 * HELD_EVENTS) or ()) == HELD_EVENTS


async def test_of_very_many_ended_replies_the_longest_ended_are_forgotten_first(hourglass: Hourglass) -> None:
    feed = MemoryReplyFeed(later=hourglass.later)
    await feed.open(running := new_id(), 0)
    ended = [new_id() for _ in range(HELD_ENDED + 2)]
    for reply in ended:
        await feed.open(reply, 0)
        await feed.append(reply, ENDED)

    assert [await now(feed, reply) for reply in ended[:2]] == [None, None]
    assert len(hourglass.waiting) == HELD_ENDED  # nothing keeps what is forgotten
    assert await now(feed, ended[2]) == numbered(1, ENDED)
    assert await now(feed, running) == []  # a running one is never forgotten
    hourglass.turn()  # forgets the others, and stumbles over none that is gone
    assert list(feed._logs) == [running]
    assert not feed._ended


async def test_by_default_the_running_loop_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatassist.adapters.replies.memory.HELD_SECONDS", 0.001)
    feed = MemoryReplyFeed()
    await feed.open(reply := new_id(), 0)
    await feed.append(reply, ENDED)

    deadline = time.monotonic() + PATIENCE
    await until(lambda: not feed._logs or time.monotonic() > deadline)

    assert await now(feed, reply) is None
