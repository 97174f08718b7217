"""Places of keys on Redis: instances agree on one, it is forgotten soon, and Redis keeps nobody from sending."""

import time
from collections.abc import Callable

import pytest

from chatassist.adapters.persistence import redis_places
from chatassist.adapters.persistence.redis_places import RedisPlaces
from chatassist.adapters.redis import RedisLink
from tests.builders import new_id
from tests.fixtures.redis import HASTY, RedisServer
from tests.fixtures.reply_feeds import eventually

ANNA, KEY = "anna", "a-key-of-hers"
OpenPlaces = Callable[..., RedisPlaces]


@pytest.fixture
def open_places(open_link: Callable[..., RedisLink]) -> OpenPlaces:
    """Open places, each as an instance of its own, on a server."""
    return lambda server, patience=1.0: RedisPlaces(open_link(server, patience))


async def test_who_is_first_decides_for_the_others(shared_redis: RedisServer, open_places: OpenPlaces) -> None:
    first, second, third = (open_places(shared_redis) for _ in range(3))
    for saved in (True, False):
        user = new_id()
        assert await first.take(user, KEY, saved=saved)
        assert not await second.take(user, KEY, saved=not saved)
        assert await second.take(user, KEY, saved=saved), "in one store the key's own index rules"
        assert not await third.take(user, KEY, saved=not saved)
        assert await third.take(new_id(), KEY, saved=not saved)
        assert await third.take(user, "another", saved=not saved)


async def test_an_instance_may_change_its_mind(shared_redis: RedisServer, open_places: OpenPlaces) -> None:
    first, second = open_places(shared_redis), open_places(shared_redis)
    user = new_id()
    assert await first.take(user, KEY, saved=True)
    assert await first.take(user, KEY, saved=False), "there was no such session among the saved ones"
    assert not await second.take(user, KEY, saved=True)


async def test_of_two_that_change_their_mind_one_may(shared_redis: RedisServer, open_places: OpenPlaces) -> None:
    first, second = open_places(shared_redis), open_places(shared_redis)
    user = new_id()
    assert await first.take(user, KEY, saved=True)
    assert await second.take(user, KEY, saved=True)
    assert await second.take(user, KEY, saved=False)
    assert not await first.take(user, KEY, saved=True)
    assert await first.take(user, KEY, saved=False)


async def test_it_is_forgotten_a_while_after_it_was_last_taken(
    redis_server: RedisServer, open_places: OpenPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_places(redis_server), open_places(redis_server)
    monkeypatch.setattr(redis_places, "_KEPT", 40)
    await first.take(ANNA, KEY, saved=True)
    monkeypatch.setattr(redis_places, "_KEPT", 400)
    await second.take(ANNA, KEY, saved=True)
    [name] = _names(redis_server)
    assert int(redis_server.say("PTTL", name)[1:]) > 40
    await eventually(lambda: not _names(redis_server))
    assert await first.take(ANNA, KEY, saved=False)


async def test_neither_key_nor_user_can_be_read_there(redis_server: RedisServer, open_places: OpenPlaces) -> None:
    await open_places(redis_server).take(ANNA, KEY, saved=False)
    [name] = _names(redis_server)
    assert int(redis_server.say("PTTL", name)[1:]) > 50_000
    told = f"{name} {redis_server.say('GET', name)!r}"
    assert ANNA not in told
    assert KEY not in told


async def test_without_redis_nobody_waits_for_it(redis_server: RedisServer, open_places: OpenPlaces) -> None:
    places, other = open_places(redis_server, HASTY), open_places(redis_server)
    assert await other.take(ANNA, KEY, saved=False)
    for break_it in (redis_server.pause, redis_server.stop):
        break_it()
        began = time.monotonic()
        assert await places.take(ANNA, KEY, saved=True)
        assert time.monotonic() - began < 1


def _names(server: RedisServer) -> list[str]:
    """Return all names of keys."""
    return [line for line in server.say("KEYS", "*").decode().split("\r\n") if line.startswith("chatassist:")]
