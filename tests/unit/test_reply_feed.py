"""What every reply feed promises; an adapter joins by an entry in `FEEDS`. Below it, what the memory feed holds."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from chatassist.adapters.replies.memory import HELD_ENDED, HELD_EVENTS, HELD_SECONDS, MemoryReplyFeed
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace, ReplyFeed
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT
from tests.builders import an_end, new_id
from tests.unit.worlds import PATIENCE, until

ENDED = Ended(an_end())


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


Build = Callable[[Hourglass], ReplyFeed]
FEEDS: dict[str, Build] = {"memory": lambda hourglass: MemoryReplyFeed(later=hourglass.later)}


@pytest.fixture
def hourglass() -> Hourglass:
    return Hourglass()


@pytest.fixture(params=FEEDS)
def feed(request: pytest.FixtureRequest, hourglass: Hourglass) -> ReplyFeed:
    return FEEDS[request.param](hourglass)


@pytest.fixture
async def reply(feed: ReplyFeed) -> str:
    """A reply whose feed was just opened."""
    await feed.open(made := new_id(), 0)
    return made


async def now(feed: ReplyFeed, reply: str, after: int = 0) -> list[Numbered] | None:
    """What can be read without waiting."""
    found = await feed.read(reply, after, 0)
    return None if found is None else list(found)


def numbered(first: int, *events: Delta | Replace | Ended) -> list[Numbered]:
    return [Numbered(seq, event) for seq, event in enumerate(events, start=first)]


async def reading(feed: ReplyFeed, reply: str, after: int) -> asyncio.Task[Sequence[Numbered] | None]:
    """A reader that has begun to wait."""
    task = asyncio.create_task(feed.read(reply, after, PATIENCE))
    await asyncio.sleep(0)
    assert not task.done()
    return task


# --- Numbers --------------------------------------------------------------------------------------------------------


async def test_events_are_numbered_from_one_without_gaps(feed: ReplyFeed, reply: str) -> None:
    assert await feed.append(reply, Delta("a")) == 1
    assert await feed.append(reply, Delta("b"), Delta("c")) == 3
    assert await feed.append(reply, ENDED) == 4

    assert await now(feed, reply) == numbered(1, Delta("a"), Delta("b"), Delta("c"), ENDED)


async def test_a_later_attempt_numbers_from_where_it_was_opened(feed: ReplyFeed) -> None:
    await feed.open(reply := new_id(), 2 * NUMBERS_PER_ATTEMPT)

    assert await feed.append(reply, Replace("", "restarted"), Delta("a")) == 2 * NUMBERS_PER_ATTEMPT + 2
    assert await now(feed, reply, 2 * NUMBERS_PER_ATTEMPT + 1) == [Numbered(2 * NUMBERS_PER_ATTEMPT + 2, Delta("a"))]


@pytest.mark.parametrize(("after", "rest"), [(0, "abc"), (1, "bc"), (2, "c"), (3, ""), (99, "")])
async def test_a_reader_gets_just_what_came_after(feed: ReplyFeed, reply: str, after: int, rest: str) -> None:
    await feed.append(reply, Delta("a"), Delta("b"), Delta("c"))

    assert await now(feed, reply, after) == numbered(after + 1, *map(Delta, rest))


async def test_reading_takes_nothing_away(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("a"), ENDED)

    assert await now(feed, reply) == await now(feed, reply) == numbered(1, Delta("a"), ENDED)


async def test_what_was_read_does_not_change_any_more(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("a"))
    found = await feed.read(reply, 0, 0)
    await feed.append(reply, Delta("b"))

    assert found is not None
    assert list(found) == numbered(1, Delta("a"))


async def test_replies_do_not_mix(feed: ReplyFeed, reply: str) -> None:
    await feed.open(other := new_id(), 0)
    await feed.append(reply, Delta("mine"))
    await feed.append(other, Delta("theirs"))

    assert await now(feed, reply) == numbered(1, Delta("mine"))
    assert await now(feed, other) == numbered(1, Delta("theirs"))


# --- Waiting --------------------------------------------------------------------------------------------------------


async def test_what_is_there_is_given_at_once(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("a"))

    found = await asyncio.wait_for(feed.read(reply, 0, 60), 1)

    assert list(found or ()) == numbered(1, Delta("a"))


async def test_a_reader_is_woken_by_the_next_event(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("a"))
    reader = await reading(feed, reply, 1)

    await feed.append(reply, Delta("b"))

    assert list(await reader or ()) == numbered(2, Delta("b"))


async def test_all_readers_are_woken_each_with_what_it_lacks(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("a"))
    one, two, ahead = [await reading(feed, reply, after) for after in (1, 1, 2)]

    await feed.append(reply, Delta("b"), ENDED)

    assert list(await one or ()) == list(await two or ()) == numbered(2, Delta("b"), ENDED)
    assert list(await ahead or ()) == numbered(3, ENDED)


async def test_an_event_that_a_reader_has_already_does_not_end_its_waiting(feed: ReplyFeed, reply: str) -> None:
    reader = await reading(feed, reply, 1)

    await feed.append(reply, Delta("a"))
    await asyncio.sleep(0)
    assert not reader.done()
    await feed.append(reply, Delta("b"))

    assert list(await reader or ()) == numbered(2, Delta("b"))


async def test_silence_is_empty_after_its_time_and_not_before(feed: ReplyFeed, reply: str) -> None:
    started = time.monotonic()

    assert list(await feed.read(reply, 0, 0.02) or ()) == []
    assert await feed.read(reply, 0, 0) is not None

    assert time.monotonic() - started >= 0.019


async def test_a_feed_that_was_never_opened_is_not_held(feed: ReplyFeed) -> None:
    assert await asyncio.wait_for(feed.read(new_id(), 0, 60), 1) is None


# --- Events that are no longer held ---------------------------------------------------------------------------------


def letters(count: int) -> list[Delta]:
    return [Delta(chr(ord("a") + number % 26)) for number in range(count)]


def text_of(events: Sequence[Delta]) -> str:
    return "".join(event.text for event in events)


MANY = letters(HELD_EVENTS + 10)


async def test_a_reader_too_far_behind_is_given_all_text_in_one_piece(feed: ReplyFeed, reply: str) -> None:
    for event in MANY:
        await feed.append(reply, event)

    assert await now(feed, reply, 3) == [Numbered(len(MANY), Replace(text_of(MANY), "resync"))]
    await feed.append(reply, Delta("!"))
    assert await now(feed, reply, len(MANY)) == numbered(len(MANY) + 1, Delta("!"))


async def test_one_too_far_behind_at_the_end_is_given_all_text_and_the_end(feed: ReplyFeed, reply: str) -> None:
    for event in MANY:
        await feed.append(reply, event)
    await feed.append(reply, ENDED)

    assert await now(feed, reply) == numbered(len(MANY), Replace(text_of(MANY), "resync"), ENDED)


async def test_a_replacement_counts_in_the_text_in_one_piece(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("forgotten"), Replace("new: ", "moderation"), *MANY)

    assert await now(feed, reply) == [Numbered(len(MANY) + 2, Replace("new: " + text_of(MANY), "resync"))]


@pytest.mark.parametrize("after", [0, 1, 9, 10, 11, HELD_EVENTS, HELD_EVENTS + 9])
async def test_wherever_a_reader_stands_it_can_put_the_text_together(feed: ReplyFeed, reply: str, after: int) -> None:
    text = text_of(MANY[:after])
    await feed.append(reply, *MANY, ENDED)

    found = await now(feed, reply, after)

    assert found
    for each in found[:-1]:
        match each.event:
            case Delta(more):
                text += more
            case Replace(content):
                text = content
    assert text == text_of(MANY)
    assert found[-1] == Numbered(len(MANY) + 1, ENDED)


# --- Another attempt ------------------------------------------------------------------------------------------------


async def test_a_feed_that_is_opened_again_holds_nothing_earlier(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("old"), ENDED)

    await feed.open(reply, NUMBERS_PER_ATTEMPT)

    assert await now(feed, reply) == []
    await feed.append(reply, Replace("", "restarted"), Delta("new"))
    assert await now(feed, reply, NUMBERS_PER_ATTEMPT) == numbered(
        NUMBERS_PER_ATTEMPT + 1, Replace("", "restarted"), Delta("new")
    )


async def test_a_reader_of_an_earlier_attempt_is_given_the_new_one_in_one_piece(feed: ReplyFeed, reply: str) -> None:
    await feed.append(reply, Delta("old"), ENDED)
    await feed.open(reply, NUMBERS_PER_ATTEMPT)
    await feed.append(reply, Replace("", "restarted"), Delta("new"))

    assert await now(feed, reply, 1) == [Numbered(NUMBERS_PER_ATTEMPT + 2, Replace("new", "resync"))]


async def test_a_reader_who_waits_while_a_feed_is_opened_again_goes_on_waiting_for_the_new_one(
    feed: ReplyFeed, reply: str
) -> None:
    await feed.append(reply, Delta("old"))
    reader = await reading(feed, reply, 1)

    await feed.open(reply, NUMBERS_PER_ATTEMPT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not reader.done()
    await feed.append(reply, Delta("new"))

    found = await asyncio.wait_for(reader, 1)
    assert list(found or ()) == [Numbered(NUMBERS_PER_ATTEMPT + 1, Replace("new", "resync"))]


# --- Forgetting -----------------------------------------------------------------------------------------------------


async def test_a_feed_is_forgotten_a_minute_after_its_end_and_not_before(
    feed: ReplyFeed, reply: str, hourglass: Hourglass
) -> None:
    await feed.append(reply, Delta("a"))
    assert hourglass.waiting == []
    await feed.append(reply, ENDED)
    assert await now(feed, reply) == numbered(1, Delta("a"), ENDED)

    assert [seconds for seconds, _ in hourglass.waiting] == [HELD_SECONDS] == [60]
    hourglass.turn()

    assert await now(feed, reply) is None


async def test_a_feed_that_was_opened_again_outlives_the_minute_of_its_earlier_end(
    feed: ReplyFeed, reply: str, hourglass: Hourglass
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
    feed: ReplyFeed, reply: str, hourglass: Hourglass
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
    feed: ReplyFeed, reply: str, hourglass: Hourglass
) -> None:
    await feed.append(reply, ENDED)
    reader = asyncio.create_task(feed.read(reply, 1, 0.01))
    await asyncio.sleep(0)
    hourglass.turn()

    assert not await reader
    assert await feed.read(reply, 1, 0) is None


# --- Readers cannot hurt --------------------------------------------------------------------------------------------


async def test_a_writer_never_waits_for_readers_who_do_not_come_back(feed: ReplyFeed, reply: str) -> None:
    readers = [await reading(feed, reply, 0) for _ in range(100)]

    for event in MANY:
        appending = feed.append(reply, event)
        with pytest.raises(StopIteration):  # it never even waits
            appending.__await__().__next__()

    assert {len(await reader or ()) for reader in readers} == {1}


async def test_a_reader_who_was_cancelled_disturbs_nobody(feed: ReplyFeed, reply: str) -> None:
    gone, stays = await reading(feed, reply, 0), await reading(feed, reply, 0)

    gone.cancel()
    await feed.append(reply, Delta("a"))

    assert list(await stays or ()) == numbered(1, Delta("a"))
    assert (await asyncio.gather(gone, return_exceptions=True))[0].__class__ is asyncio.CancelledError


# --- What the memory feed holds -------------------------------------------------------------------------------------


async def test_no_waiter_is_left_behind_by_silence_or_cancellation() -> None:
    feed = MemoryReplyFeed()
    await feed.open(reply := new_id(), 0)

    await feed.read(reply, 0, 0.001)
    gone = await reading(feed, reply, 0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)

    assert not feed._logs[reply].waiters


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
