"""What every feed promises, over memory and Redis, with the reader in the same process or in another one."""

import asyncio
import time

import pytest

from chatassist.adapters.replies.log import HELD_EVENTS
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.domain.ports.replies import Delta, Numbered, Replace, ReplyFeed, Titled
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT
from tests.builders import new_id
from tests.fixtures.reply_feeds import ENDED, PATIENCE, letters, now, numbered, reading, text_of


@pytest.fixture(params=["memory", "redis", "redis, read elsewhere"])
def feed(request: pytest.FixtureRequest) -> ReplyFeed:
    """A feed; in the last case its reader is another instance's."""
    if request.param == "memory":
        return MemoryReplyFeed()
    made: ReplyFeed = request.getfixturevalue("redis_feed" if request.param == "redis" else "redis_pair")
    return made


@pytest.fixture
async def reply(feed: ReplyFeed) -> str:
    """A reply whose feed was just opened."""
    await feed.open(made := new_id(), 0)
    return made


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


async def test_who_makes_a_reply_says_how_far_it_has_come_until_it_ends(feed: ReplyFeed, reply: str) -> None:
    assert await feed.last(reply, PATIENCE) == 0
    await feed.append(reply, Delta("a"), Delta("b"))
    assert await feed.last(reply, PATIENCE) == 2
    await feed.append(reply, ENDED)
    assert await feed.last(reply, 0.1) is None
    assert await feed.last(new_id(), 0.1) is None


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


async def test_a_title_is_an_event_like_the_others(feed: ReplyFeed, reply: str) -> None:
    titled = Titled("a-session", "一个标题")
    assert await feed.append(reply, Delta("a")) == 1
    assert await feed.append(reply, titled) == 2
    assert await feed.append(reply, Delta("b"), ENDED) == 4

    assert await now(feed, reply) == numbered(1, Delta("a"), titled, Delta("b"), ENDED)
    assert await now(feed, reply, 1) == numbered(2, titled, Delta("b"), ENDED)


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


async def test_each_reader_waits_as_long_as_it_asked_to_whoever_else_waits(feed: ReplyFeed, reply: str) -> None:
    now = asyncio.get_running_loop().time
    begun = now()

    async def waited(seconds: float) -> float:
        assert await feed.read(reply, 0, seconds) == ()
        return now() - begun

    times, gone = (0.3, 0.1, 0.2), asyncio.create_task(feed.read(reply, 0, 0.05))
    await asyncio.sleep(0)
    gone.cancel()  # whose time would have been over first
    took = await asyncio.gather(*(waited(seconds) for seconds in times))

    for seconds, seen in zip(times, took, strict=True):
        assert seconds - 0.02 < seen < seconds + 0.08


async def test_a_reader_who_was_woken_waits_anew(feed: ReplyFeed, reply: str) -> None:
    now = asyncio.get_running_loop().time
    reading = asyncio.create_task(feed.read(reply, 0, 0.15))
    await asyncio.sleep(0.1)
    await feed.append(reply, Delta("x"))
    assert await reading
    begun = now()

    assert await feed.read(reply, 1, 0.15) == ()
    assert 0.13 < now() - begun < 0.25


async def test_a_feed_that_was_never_opened_is_not_held(feed: ReplyFeed) -> None:
    assert await asyncio.wait_for(feed.read(new_id(), 0, 60), 1) is None


# --- Events that are no longer held ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("late", [False, True], ids=["that is not held either", "that came last"])
async def test_a_title_is_no_part_of_the_text_in_one_piece(feed: ReplyFeed, reply: str, late: bool) -> None:
    titled = Titled("a-session", "一个标题")
    await feed.append(reply, *(() if late else (titled,)), *MANY, *((titled,) if late else ()))

    assert await now(feed, reply) == [Numbered(len(MANY) + 1, Replace(text_of(MANY), "resync"))]
    await feed.append(reply, ENDED)
    assert await now(feed, reply, len(MANY) + 1) == numbered(len(MANY) + 2, ENDED)


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
