"""What `chatassist doctor` says about Redis."""

from collections.abc import Callable

import pytest

from tests.fixtures.redis import PASSWORD, RedisServer
from tests.fixtures.vendor import LoopbackVendor
from tests.integration.test_doctor import HASTY, Doctor, doctor

__all__ = ["doctor"]  # the fixture

StartRedis = Callable[..., RedisServer]
QUOTED = PASSWORD.replace("@", "%40").replace("/", "%2F")


async def test_none_is_needed(doctor: Doctor) -> None:
    told = await doctor()
    assert told.only("redis")[0] == "ok"
    assert "one instance needs none" in told.only("redis")[1]


async def test_a_good_one(doctor: Doctor, redis_server: RedisServer) -> None:
    told = await doctor({"REDIS__URL": redis_server.url})
    assert [verdict for verdict, _ in told.lines["redis"]] == ["ok"] * 3
    said = " ".join(sentence for _, sentence in told.lines["redis"])
    assert all(part in said for part in ("Version ", "noeviction", "written")), said
    assert int(redis_server.say("PTTL", "chatassist:doctor")[1:]) <= 1000, "it goes by itself"
    assert redis_server.say("DBSIZE") in (b":0\r\n", b":1\r\n")


async def test_one_with_a_password(doctor: Doctor, start_redis: StartRedis) -> None:
    server = start_redis("--requirepass", PASSWORD)
    told = await doctor({"REDIS__URL": f"redis://:{QUOTED}@127.0.0.1:{server.port}/1"})
    assert told.faults == []
    for url in (server.url, f"redis://:{QUOTED}-no@127.0.0.1:{server.port}"):
        told = await doctor({"REDIS__URL": url})
        assert told.faults == ["redis"]
        assert "refuses this account or password. Look at CHATASSIST_REDIS__URL" in told.only("redis")[1]
        assert QUOTED not in told.output
        assert PASSWORD not in told.output


@pytest.mark.parametrize(
    ("options", "last"),
    [
        (("--maxmemory-policy", "allkeys-lru"), ("warn", "maxmemory-policy allkeys-lru")),
        (("--maxmemory", "1"), ("FAULT", "memory is full")),
        (("--replicaof", "127.0.0.1 9"), ("FAULT", "a replica")),
        (("--min-replicas-to-write", "1"), ("FAULT", "does not take what is written")),
    ],
    ids=["eviction", "full", "replica", "no replicas"],
)
async def test_one_that_loses_or_refuses_what_it_is_given(
    doctor: Doctor, start_redis: StartRedis, options: tuple[str, ...], last: tuple[str, str]
) -> None:
    told = await doctor({"REDIS__URL": start_redis(*options).url})
    assert told.lines["redis"][0][0] == "ok"
    assert any(verdict == last[0] and last[1].lower() in said.lower() for verdict, said in told.lines["redis"][1:]), (
        told
    )


async def test_a_cluster_and_an_account_that_may_not_do_enough(doctor: Doctor, start_redis: StartRedis) -> None:
    told = await doctor({"REDIS__URL": start_redis("--cluster-enabled", "yes").url})
    assert told.faults == ["redis"]
    assert "is a cluster" in told.only("redis")[1]
    server = start_redis()
    server.say("ACL", "SETUSER", "default", "-xadd")
    told = await doctor({"REDIS__URL": server.url})
    assert told.faults == ["redis"]
    assert "may not do what is needed" in told.lines["redis"][-1][1]


async def test_one_that_is_away_frozen_or_something_else(
    doctor: Doctor, redis_server: RedisServer, vendor: LoopbackVendor
) -> None:
    redis_server.pause()
    told = await doctor({"REDIS__URL": redis_server.url}, patience="5")
    assert "does not answer in time" in told.only("redis")[1]
    assert told.seconds < 4
    redis_server.stop()
    told = await doctor({"REDIS__URL": redis_server.url})
    assert "nobody answers there" in told.only("redis")[1].lower()
    told = await doctor({"REDIS__URL": vendor.base_url.replace("http://", "redis://").replace("/v1", "")})
    assert told.faults == ["redis"]


async def test_one_whose_package_is_missing(
    doctor: Doctor, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatassist.adapters.redis.find_spec", lambda _: None)
    told = await doctor({"REDIS__URL": redis_server.url}, patience=HASTY)
    assert told.faults == ["redis"]
    assert "install chatassist[redis]" in told.only("redis")[1]
