"""The way to Redis: what it makes of failures, and that it loses no cancellation."""

import asyncio
import time
from collections.abc import Callable

import pytest

from chatassist.adapters.redis import POOL, RedisAway, RedisInDoubt, RedisLink, RedisRefused, open_redis
from tests.fixtures.redis import HASTY, PASSWORD, RedisServer
from tests.fixtures.reply_feeds import eventually

OpenLink = Callable[..., RedisLink]


async def test_one_command_s_refusal_is_nobody_else_s_trouble(shared_redis: RedisServer, open_link: OpenLink) -> None:
    link = open_link(shared_redis)
    with pytest.raises(RedisRefused):
        await link.ask("XADD", "a-key", "0-0", "f", "v")
    first, second, third = await link.send([("SET", "a-key", "1"), ("LPUSH", "a-key", "a-word"), ("GET", "a-key")])
    assert isinstance(second, RedisRefused)
    assert "a-word" not in str(second)
    assert (first, third) == (True, b"1")
    assert link.up


@pytest.mark.parametrize("turns", range(1, 25))
async def test_no_cancellation_is_lost_wherever_it_strikes(
    shared_redis: RedisServer, open_link: OpenLink, turns: int
) -> None:
    link = open_link(shared_redis)

    async def ask() -> None:
        while True:
            await link.ask("XREAD", "BLOCK", 50, "STREAMS", "no-such-stream", "0-1")

    task = asyncio.create_task(ask())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    assert not (await asyncio.wait({task}, timeout=2))[1]
    assert task.cancelled()
    assert await link.ask("PING"), "and no later answer is taken for another's"


async def test_answers_are_never_swapped_after_cancellations(shared_redis: RedisServer, open_link: OpenLink) -> None:
    link = open_link(shared_redis)
    await link.send([("SET", f"swap-{n}", n) for n in range(200)])

    async def get(n: int) -> bool:
        return bool(await link.ask("GET", f"swap-{n}") == str(n).encode())

    tasks = [asyncio.create_task(get(n)) for n in range(200)]
    for n, task in enumerate(tasks):
        if n % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {result for result in results if not isinstance(result, asyncio.CancelledError)} == {True}
    assert all(await asyncio.gather(*(get(n) for n in range(200))))


async def test_many_at_once_share_a_few_connections(redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server)
    await asyncio.gather(*(link.ask("PING") for _ in range(500)))
    assert redis_server.say("CLIENT", "LIST").count(b" name=") <= POOL + 1


async def test_nobody_waits_for_what_is_known_to_be_away(redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server, HASTY)
    redis_server.pause()
    began = time.monotonic()
    results = await asyncio.gather(*(link.ask("PING") for _ in range(500)), return_exceptions=True)
    assert {type(result) for result in results} == {RedisAway}
    assert time.monotonic() - began < 4 * HASTY
    began = time.monotonic()
    with pytest.raises(RedisAway):
        await link.ask("PING")
    assert time.monotonic() - began < HASTY / 2
    redis_server.resume()
    await asyncio.wait_for(link.recovered(), 5)
    assert await link.ask("PING")


async def test_a_unit_that_was_changed_by_others_does_not_happen(
    shared_redis: RedisServer, open_link: OpenLink
) -> None:
    link, other = open_link(shared_redis), open_link(shared_redis)
    for meddles in (False, True):
        await other.ask("SET", "watched", "1")
        async with link.watching() as watch:
            assert list(await watch.get(["watched"])) == [b"1"]
            if meddles:
                await other.ask("SET", "watched", "2")
            assert await watch.commit([("SET", "watched", "3"), ("SET", "besides", "1")]) is not meddles
        assert await other.ask("GET", "watched") == (b"2" if meddles else b"3")


async def test_a_unit_whose_commit_is_not_answered_is_in_doubt(redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server, HASTY)

    async def unit() -> None:
        async with link.watching() as watch:
            assert list(await watch.get(["watched"])) == [None]
            redis_server.pause()
            await watch.commit([("SET", "watched", "3")])

    with pytest.raises(RedisInDoubt):
        await unit()
    assert not link.up
    redis_server.resume()
    await eventually(lambda: link.up)


async def test_an_address_with_a_password(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--requirepass", PASSWORD)
    quoted = PASSWORD.replace("@", "%40").replace("/", "%2F")
    link = open_redis(f"redis://:{quoted}@127.0.0.1:{server.port}/3")
    assert await link.ask("PING")
    await link.aclose()


def test_what_is_no_address_is_told_without_it() -> None:
    with pytest.raises(ValueError, match="no address of a Redis") as caught:
        open_redis("redis://h:6379/0?socket_timeout=a-private-word")
    assert "a-private-word" not in str(caught.value)


class Closing:
    """A client whose connection is lost just before it writes, as uvloop tells it, and then works."""

    def __init__(self) -> None:
        self.losses = 2

    async def execute_command(self, *_: object) -> bool:
        if self.losses:
            self.losses -= 1
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
        return True

    async def aclose(self) -> None:
        pass


async def test_a_connection_that_is_lost_before_a_write_is_a_redis_that_is_away() -> None:
    link = RedisLink(Closing(), unreachable=(OSError,), changed=KeyError)

    with pytest.raises(RedisAway):
        await link.ask("PING")

    await asyncio.wait_for(link.recovered(), 5)
    assert await link.ask("PING")
    await link.aclose()
