"""Feeds over Redis when things go wrong: overtaken writers, gaps, a Redis that is gone, frozen or emptied."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from chatassist.adapters.redis import RedisLink
from chatassist.adapters.replies import redis_copies, redis_shipper
from chatassist.adapters.replies.log import HELD_EVENTS
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.adapters.replies.redis import RedisReplyFeed
from chatassist.adapters.replies.redis_entries import KEPT_ENTRIES, RUNNING_SECONDS, key_of
from chatassist.adapters.seal import Seal
from chatassist.domain.ports.replies import Delta, Ended, Event, Numbered, Replace, Thinking, Titled
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT, FinishReason, Status, Usage
from tests.builders import an_end, new_id
from tests.fixtures.redis import HASTY, SECRET, RedisServer
from tests.fixtures.reply_feeds import (
    ENDED,
    OpenFeed,
    Pair,
    eventually,
    hearing,
    letters,
    now,
    numbered,
    reading,
    text_of,
)


async def shipped(feed: RedisReplyFeed) -> None:
    """Wait until everything is on its way that can be."""
    await eventually(lambda: not feed._shipper._due and not feed._shipper._waiting)


async def opened(feed: RedisReplyFeed | Pair, *events: Delta, after: int = 0) -> str:
    """Return a new reply with these events."""
    await feed.open(reply := new_id(), after)
    if events:
        await feed.append(reply, *events)
    return reply


async def read_until_found(feed: RedisReplyFeed, reply: str, after: int) -> list[Numbered]:
    """Read as a follower does: what is not held is asked for again."""
    async with asyncio.timeout(10):
        while not (found := await feed.read(reply, after, 0.5)):  # noqa: ASYNC110 - as a follower does
            await asyncio.sleep(0.01)
    return list(found)


async def read_until_silent(feed: RedisReplyFeed, reply: str) -> list[Numbered]:
    """Read until the reply is held."""
    async with asyncio.timeout(10):
        while (found := await feed.read(reply, 0, 0)) is None:  # noqa: ASYNC110 - as a follower does
            await asyncio.sleep(0.01)
    return list(found)


# --- What is shipped ------------------------------------------------------------------------------------------------


async def test_every_event_arrives_as_it_was(redis_pair: Pair) -> None:
    usage = Usage(input_tokens=1, output_tokens=2)
    guess = replace(usage, estimated=True)
    ends = [
        Ended(an_end("你好👍", thinking="hm", seq=6, reason="why", model="m", usage=usage)),
        Ended(an_end("你好👍", seq=6, usage=guess)),
        Ended(an_end(None, status=Status.FAILED, finish_reason=FinishReason.ERROR)),
    ]
    for end in ends:
        events: list[Event] = [
            Delta("你\n"),
            Delta("\ud83d"),
            Thinking("嗯…"),
            Replace("", "moderation"),
            Titled("a-session", "你好 👍"),
            Delta(""),
            end,
        ]
        await redis_pair.open(reply := new_id(), 0)
        await redis_pair.append(reply, *events)
        assert await now(redis_pair, reply) == [Numbered(seq, event) for seq, event in enumerate(events, 1)]


async def test_a_burst_is_one_entry_and_a_stream_is_bounded(redis_server: RedisServer, open_feed: OpenFeed) -> None:
    writer, reader = open_feed(redis_server), open_feed(redis_server)
    reply = await opened(writer, *letters(50))
    await shipped(writer)
    await eventually(lambda: redis_server.say("XLEN", key_of(reply)) == b":2\r\n")
    other = await opened(writer)
    commands = [writer._shipper._packed([writer._shipper._replies[other]])]  # takes the opening
    for event in letters(3 * KEPT_ENTRIES):
        await writer.append(other, event)
        commands.append(writer._shipper._packed([writer._shipper._replies[other]]))
    await writer._link.send([command for packed, _ in commands for command in packed])
    length = int(redis_server.say("XLEN", key_of(other))[1:])
    assert KEPT_ENTRIES <= length < KEPT_ENTRIES + 200, "Redis trims a node of a hundred at a time"

    assert await now(reader, other, 0) is None, "the beginning is lost, and with it the text"
    assert await now(reader, other, 3 * KEPT_ENTRIES - 2) == numbered(
        3 * KEPT_ENTRIES - 1, *letters(3 * KEPT_ENTRIES)[-2:]
    )
    await writer.append(other, Replace("all of it", "moderation"))
    assert (await read_until_found(reader, other, 3 * KEPT_ENTRIES))[0].event == Replace("all of it", "moderation")
    assert await now(reader, other, 0) == [Numbered(3 * KEPT_ENTRIES + 1, Replace("all of it", "resync"))]


async def test_a_stream_lives_for_a_while_and_not_long_after_its_end(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    writer = open_feed(redis_server)
    reply = await opened(writer)
    await eventually(lambda: int(redis_server.say("TTL", key_of(reply))[1:]) > RUNNING_SECONDS - 10)
    await writer.append(reply, ENDED)
    await eventually(lambda: 60 <= int(redis_server.say("TTL", key_of(reply))[1:]) <= 120)
    await eventually(lambda: not writer._shipper._replies)  # nor is anything kept here of what has ended


async def test_nothing_that_was_said_can_be_read_in_what_redis_writes_down(
    start_redis: Callable[..., RedisServer], open_feed: OpenFeed
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    phrase, title = "a-very-private-phrase", "一句只有用户知道的话"
    writer, reader = open_feed(server), open_feed(server)
    await writer.open(reply := new_id(), 0)
    told = (Delta(phrase), Thinking(title), Titled(phrase, title), Replace(title + phrase, "resync"))
    await writer.append(reply, *told, Ended(an_end(phrase)))
    assert [each.seq for each in await read_until_found(reader, reply, 0)] == [1, 2, 3, 4, 5]

    assert server.say("SAVE").startswith(b"+OK")
    files = [file for file in server.files() if file.stat().st_size]
    written = b"".join(file.read_bytes() for file in files)
    assert {".rdb", ".aof"} <= {file.suffix for file in files}
    assert reply.encode() in written, "this is where it lies"
    for private in (phrase, phrase[:8], title, title[:4]):
        for form in (private.encode(), private.encode("unicode_escape"), private.encode("utf-16-le")):
            assert form not in written


async def test_who_has_another_secret_reads_nothing_and_who_has_both_reads_all(
    shared_redis: RedisServer, open_feed: OpenFeed
) -> None:
    other = "w8Rr2TnQ5mKx7LpZ3vBc9YdHj4FsGe6A"
    writer = open_feed(shared_redis)
    stranger, rotated = (
        open_feed(shared_redis, sealing=Seal([other])),
        open_feed(shared_redis, sealing=Seal([other, SECRET])),
    )
    reply = await opened(writer, Delta("a"))
    assert await read_until_found(rotated, reply, 0) == numbered(1, Delta("a"))
    assert await now(stranger, reply) is None


async def test_an_entry_put_into_another_stream_is_not_believed(redis_server: RedisServer, open_feed: OpenFeed) -> None:
    writer, reader = open_feed(redis_server), open_feed(redis_server)
    reply, other = await opened(writer, Delta("mine")), new_id()
    await shipped(writer)
    await eventually(lambda: redis_server.say("COPY", key_of(reply), key_of(other)) == b":1\r\n")
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("mine"))
    assert await now(reader, other) is None


# --- Several writers, several readers -------------------------------------------------------------------------------


async def test_a_writer_that_was_overtaken_is_not_heard_any_more(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    stale, fresh, reader = (open_feed(redis_server) for _ in range(3))
    reply = await opened(stale, Delta("old"))
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("old"))
    follower = await reading(reader, reply, 1)

    await fresh.open(reply, NUMBERS_PER_ATTEMPT)
    await fresh.append(reply, Replace("", "restarted"), Delta("new"))
    assert await follower == [Numbered(NUMBERS_PER_ATTEMPT + 2, Replace("new", "resync"))]
    assert await stale.append(reply, Delta(" and stale"), ENDED) == 3, "it never learns of it here"
    await shipped(stale)
    await fresh.append(reply, Delta("er"), ENDED)

    assert await read_until_found(reader, reply, NUMBERS_PER_ATTEMPT + 2) == numbered(
        NUMBERS_PER_ATTEMPT + 3, Delta("er"), ENDED
    )
    assert await now(stale, reply, 1) == numbered(2, Delta(" and stale"), ENDED)
    await eventually(lambda: not stale._shipper._replies)
    assert await read_until_found(stale, reply, NUMBERS_PER_ATTEMPT) != [], (
        "what is not held here any more, it reads there"
    )


async def test_one_that_waits_beyond_an_end_gets_the_next_attempt(
    shared_redis: RedisServer, open_feed: OpenFeed
) -> None:
    first, second, reader = (open_feed(shared_redis) for _ in range(3))
    reply = await opened(first, Delta("old"))
    await first.append(reply, ENDED)
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("old"), ENDED)
    assert await now(reader, reply, NUMBERS_PER_ATTEMPT) is None, "nothing comes after an end, so far"

    await second.open(reply, NUMBERS_PER_ATTEMPT)
    await second.append(reply, Replace("", "restarted"))
    assert await read_until_found(reader, reply, NUMBERS_PER_ATTEMPT) == numbered(
        NUMBERS_PER_ATTEMPT + 1, Replace("", "restarted")
    )


async def test_many_followers_need_one_connection(redis_server: RedisServer, open_feed: OpenFeed) -> None:
    writer, reader = open_feed(redis_server), open_feed(redis_server)
    replies = [await opened(writer, Delta("a")) for _ in range(60)]
    for reply in replies:
        assert await read_until_found(reader, reply, 0) == numbered(1, Delta("a"))
    followers = [await reading(reader, reply, 1) for reply in replies for _ in range(10)]
    clients = redis_server.say("CLIENT", "LIST").count(b"name=")
    for reply in replies:
        await writer.append(reply, Delta("b"))
    assert [await follower for follower in followers] == [numbered(2, Delta("b"))] * len(followers)
    assert clients < 20


async def test_copies_that_nobody_reads_are_let_go(
    shared_redis: RedisServer, open_feed: OpenFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_copies, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(redis_copies, "_SWEEP_SECONDS", 0.05)
    writer, reader = open_feed(shared_redis), open_feed(shared_redis)
    followed, left = await opened(writer, Delta("a")), await opened(writer, Delta("a"))
    for reply in (followed, left):
        await read_until_found(reader, reply, 0)
    follower = await reading(reader, followed, 1)
    await eventually(lambda: set(reader._copies._copies) == {followed})
    await writer.append(followed, Delta("b"))
    assert await follower == numbered(2, Delta("b"))
    await eventually(lambda: reader._copies._reader is not None and reader._copies._reader.done())
    assert await read_until_found(reader, left, 0) == numbered(1, Delta("a")), "it can be had again"


async def test_more_copies_than_there_is_room_for_are_refused(
    shared_redis: RedisServer, open_feed: OpenFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_copies, "MAX_COPIES", 2)
    writer, reader = open_feed(shared_redis), open_feed(shared_redis)
    replies = [await opened(writer, Delta("a")) for _ in range(3)]
    for reply in replies[:2]:
        await read_until_found(reader, reply, 0)
    await shipped(writer)
    assert await now(reader, replies[2]) is None
    assert len(reader._copies._copies) == 2


# --- Gaps -----------------------------------------------------------------------------------------------------------


async def test_what_is_missing_is_noticed_and_read_from_behind_the_gap(redis_pair: Pair) -> None:
    reply = await opened(redis_pair, Delta("a"))
    assert await now(redis_pair, reply) == numbered(1, Delta("a"))
    outbound = redis_pair.writer._shipper._replies[reply]
    outbound.last += 2  # two events got lost
    follower = asyncio.create_task(redis_pair.reader.read(reply, 1, 5))
    redis_pair.writer._shipper.append(reply, [Delta("d"), Delta("e")])

    assert await follower is None, "what comes after 1 is not known"
    assert await now(redis_pair.reader, reply, 2) is None
    assert await now(redis_pair.reader, reply, 3) == numbered(4, Delta("d"), Delta("e"))
    assert await now(redis_pair.reader, reply, 4) == numbered(5, Delta("e"))


async def test_a_gap_is_bridged_by_what_replaces_all(redis_pair: Pair) -> None:
    reply = await opened(redis_pair, Delta("a"))
    assert await now(redis_pair, reply) == numbered(1, Delta("a"))
    redis_pair.writer._shipper._replies[reply].last += 2
    follower = asyncio.create_task(redis_pair.reader.read(reply, 1, 5))
    redis_pair.writer._shipper.append(reply, [Replace("abc", "moderation"), Delta("d")])
    assert await follower == [Numbered(5, Replace("abcd", "resync"))]


async def test_a_copy_holds_no_more_than_a_feed(redis_pair: Pair) -> None:
    many = letters(5 * HELD_EVENTS)
    reply = await opened(redis_pair, *many)
    assert await now(redis_pair, reply) == [Numbered(len(many), Replace(text_of(many), "resync"))]
    assert len(redis_pair.reader._copies._copies[reply].log.events) == HELD_EVENTS


# --- Redis is away --------------------------------------------------------------------------------------------------


async def test_without_redis_a_feed_is_that_of_its_process(open_feed: OpenFeed, redis_server: RedisServer) -> None:
    redis_server.stop()
    feed = open_feed(redis_server)
    reply = await opened(feed, Delta("a"))
    follower = await reading(feed, reply, 1)
    await feed.append(reply, ENDED)
    assert await follower == numbered(2, ENDED)
    assert await feed.read(new_id(), 0, 5) is None
    await feed.request_stop(reply)


async def test_a_frozen_redis_delays_nobody_here_and_readers_elsewhere_not_for_long(
    redis_server: RedisServer, open_feed: OpenFeed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    writer, reader = open_feed(redis_server, HASTY), open_feed(redis_server, HASTY)
    reply = await opened(writer, Delta("a"))
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("a"))
    follower = await reading(reader, reply, 1)
    redis_server.pause()

    began = time.monotonic()
    for event in letters(1000):
        await writer.append(reply, event)
    other = await opened(writer, Delta("b"))
    assert await now(writer, other) == numbered(1, Delta("b"))
    assert time.monotonic() - began < 0.3
    assert await follower is None
    assert time.monotonic() - began < 3 * HASTY + 1
    began = time.monotonic()
    assert await asyncio.gather(*(reader.read(new_id(), 0, 5) for _ in range(1000))) == [None] * 1000
    assert time.monotonic() - began < 1, "that it is away is known"
    await eventually(lambda: not writer._link.up)

    redis_server.resume()
    await eventually(lambda: reader._link.up and writer._link.up)
    await writer.append(reply, Delta("!"))
    assert await read_until_found(reader, reply, 1001) == numbered(1002, Delta("!"))
    assert await read_until_found(reader, other, 0) == numbered(1, Delta("b"))
    told = [
        (record.levelname, record.message) for record in caplog.records if record.name == "chatassist.adapters.redis"
    ]
    assert sorted(told) == [("INFO", "redis is back")] * 2 + [("WARNING", "redis is away")] * 2, "one of each for both"


async def test_a_redis_that_comes_back_empty_is_filled_again(redis_server: RedisServer, open_feed: OpenFeed) -> None:
    writer, reader = open_feed(redis_server), open_feed(redis_server)
    reply = await opened(writer, Delta("a"))
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("a"))
    redis_server.stop()
    await writer.append(reply, Delta("lost"))
    await eventually(lambda: not writer._link.up)
    redis_server.start()
    await eventually(lambda: reader._link.up and writer._link.up)
    late = open_feed(redis_server)
    assert await now(late, reply) is None, "there is no such stream"

    await writer.append(reply, Delta("c"))
    assert await read_until_found(reader, reply, 2) == numbered(3, Delta("c"))
    assert await now(reader, reply, 1) is None
    assert await read_until_found(late, reply, 2) == numbered(3, Delta("c"))
    await eventually(lambda: int(redis_server.say("TTL", key_of(reply))[1:]) > 0)


async def test_an_end_while_redis_is_away_is_told_when_it_is_back(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    writer, reader = open_feed(redis_server), open_feed(redis_server)
    reply = await opened(writer, Delta("a"))
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("a"))
    redis_server.stop()
    await writer.append(reply, Delta("b"))
    await eventually(lambda: not writer._link.up)
    await writer.append(reply, Delta("c"), ENDED)
    redis_server.start()
    assert await read_until_found(reader, reply, 3) == numbered(4, ENDED)
    assert await now(reader, reply, 1) is None, "so its row is looked at, and tells the end"


async def test_an_opening_while_redis_is_away_is_told_when_it_is_back(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    writer, reader = open_feed(redis_server), open_feed(redis_server)
    redis_server.stop()
    reply = await opened(writer)
    await eventually(lambda: not writer._link.up)
    redis_server.start()
    await eventually(lambda: writer._link.up)
    assert await read_until_silent(reader, reply) == []
    await writer.append(reply, Delta("a"))
    assert await read_until_found(reader, reply, 0) == numbered(1, Delta("a"))


async def test_what_waits_for_redis_is_bounded(
    redis_server: RedisServer, open_feed: OpenFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_shipper, "MAX_WAITING", 100)
    monkeypatch.setattr(redis_shipper, "MAX_DUE", 10)
    feed = open_feed(redis_server, HASTY)
    reply = await opened(feed)
    redis_server.pause()
    for event in letters(1_000):  # before anybody knows that it is frozen
        await feed.append(reply, event)
        assert feed._shipper._waiting <= 101
    await eventually(lambda: not feed._link.up)
    for event in letters(1_000):
        await feed.append(reply, event)
    assert feed._shipper._waiting == 0
    for _ in range(50):
        await feed.append(await opened(feed, Delta("a")), ENDED)
    assert len(feed._shipper._due) <= 10
    assert len(feed._shipper._replies) <= 11
    assert feed._shipper._waiting <= 10


async def test_a_redis_that_takes_no_writes_counts_as_away(
    start_redis: Callable[..., RedisServer], open_feed: OpenFeed
) -> None:
    server = start_redis("--maxmemory", "1")
    feed = open_feed(server)
    await opened(feed, Delta("a"))
    await eventually(lambda: not feed._link.up)
    server.say("CONFIG", "SET", "maxmemory", "0")
    await eventually(lambda: feed._link.up)


async def test_a_redis_that_comes_and_goes_is_told_ever_more_slowly(
    shared_redis: RedisServer, open_feed: OpenFeed
) -> None:
    feed = open_feed(shared_redis)
    for _ in range(3):
        feed._link._lost(OSError())
        await eventually(lambda: feed._link.up)
    began = time.monotonic()
    feed._link._lost(OSError())
    await eventually(lambda: feed._link.up)
    assert time.monotonic() - began > 0.7


async def test_closing_ships_what_waits_and_ends_every_task(shared_redis: RedisServer, open_feed: OpenFeed) -> None:
    reader = open_feed(shared_redis)
    before = asyncio.all_tasks()
    feed = open_feed(shared_redis)
    reply = await opened(feed, Delta("a"))
    await feed.append(reply, Delta("b"), ENDED)
    await feed.aclose()
    left = asyncio.all_tasks() - before  # a service that other tests share has jobs of its own in this loop
    assert not [task for task in left if "adapters/r" in task.get_coro().cr_code.co_filename]  # type: ignore[union-attr]
    assert await now(reader, reply) == numbered(1, Delta("a"), Delta("b"), ENDED)


async def test_closing_does_not_wait_for_a_frozen_redis(redis_server: RedisServer, open_feed: OpenFeed) -> None:
    feed = open_feed(redis_server, 30)
    await opened(feed, Delta("a"))
    await shipped(feed)
    redis_server.pause()
    await opened(feed, Delta("a"))
    began = time.monotonic()
    await feed.aclose()
    assert time.monotonic() - began < 1.5


# --- Stops ----------------------------------------------------------------------------------------------------------


async def first(requests: AsyncIterator[str]) -> str:
    async with asyncio.timeout(10):
        return await anext(requests)


async def test_a_request_to_stop_reaches_all_others_and_not_who_asks(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    feeds = [open_feed(redis_server) for _ in range(3)]
    waiting = [asyncio.create_task(first(feed.stop_requests())) for feed in feeds]
    await eventually(lambda: redis_server.say("INFO", "clients").count(b"blocked_clients:3"))
    await feeds[0].request_stop(reply := new_id())
    assert await waiting[1] == await waiting[2] == reply
    await feeds[1].request_stop(other := new_id())
    assert await waiting[0] == other


async def test_who_asks_how_far_a_reply_has_come_gets_the_answer_and_nobody_takes_it_for_a_stop(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    makes, asks, bystands = feeds = [open_feed(redis_server) for _ in range(3)]
    stops = [asyncio.create_task(first(feed.stop_requests())) for feed in feeds]
    await eventually(lambda: redis_server.say("INFO", "clients").count(b"blocked_clients:3"))
    reply = await opened(makes, *letters(3))
    others = [await opened(makes, *letters(count)) for count in range(20)]

    assert await asyncio.gather(*(asks.last(reply, 5) for _ in range(5))) == [3] * 5
    assert await asyncio.gather(*(asks.last(other, 5) for other in others)) == list(range(20))
    await makes.append(reply, Delta("more"))
    assert await asks.last(reply, 5) == 4, "by its producer's word, however little was shipped"
    assert await bystands.last(reply, 5) == 4

    await makes.request_stop(reply)
    assert await stops[1] == await stops[2] == reply
    stops[0].cancel()
    await asyncio.gather(*stops, return_exceptions=True)


async def test_a_question_that_nobody_answers_is_given_up_in_time(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    makes, asks = open_feed(redis_server), open_feed(redis_server, HASTY)
    reply = await opened(makes, Delta("a"))  # who does not hear what is asked: it was killed, or sleeps
    async with hearing(asks, makes):
        for break_it in (None, redis_server.pause, redis_server.stop):
            if break_it:
                break_it()
            began = time.monotonic()
            assert await asks.last(reply, 0.2) is None
            assert time.monotonic() - began < 1
    assert await makes.last(reply, 0) == 1


async def test_where_streams_are_forbidden_a_feed_is_that_of_its_process(
    redis_server: RedisServer, open_feed: OpenFeed
) -> None:
    redis_server.say("ACL", "SETUSER", "default", "-@stream")
    feed = open_feed(redis_server)
    reply = await opened(feed, Delta("a"))
    await eventually(lambda: not feed._shipper._due)
    assert await now(feed, reply) == numbered(1, Delta("a"))
    assert await now(feed, new_id()) is None
    waiting = asyncio.create_task(first(feed.stop_requests()))
    assert not (await asyncio.wait({waiting}, timeout=0.3))[0], "nobody is heard, but nothing breaks"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_requests_are_heard_again_after_redis_was_away(redis_server: RedisServer, open_feed: OpenFeed) -> None:
    asks, hears = open_feed(redis_server), open_feed(redis_server)
    requests = hears.stop_requests()
    for _ in range(2):
        waiting = asyncio.create_task(first(requests))
        await eventually(lambda: redis_server.say("INFO", "clients").count(b"blocked_clients:1"))
        await asks.request_stop(reply := new_id())
        assert await waiting == reply
        redis_server.stop()
        await asks.request_stop(new_id())
        redis_server.start()
        await eventually(lambda: asks._link.up)


def test_a_feed_connects_to_nothing_by_being_built(seal: Seal) -> None:
    from chatassist.adapters.redis import open_redis

    link: RedisLink = open_redis("redis://127.0.0.1:9/0")
    RedisReplyFeed(MemoryReplyFeed(), link, seal)
