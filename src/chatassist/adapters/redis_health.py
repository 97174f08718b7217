"""What an operator is told about a Redis: whether it answers, is new enough, keeps what it is given, takes writes."""

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from chatassist.adapters.redis import PREFIX, RedisAway, RedisLink, RedisRefused
from chatassist.domain.diagnosis import Verdict

OLDEST = (6, 2)
_SAFE = ("noeviction", "volatile-")
_PROBE = f"{PREFIX}doctor"
_FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "AuthenticationError": "it refuses this account or password",
        "NoPermissionError": "this account may not do what is needed",
        "TimeoutError": "it does not answer in time",
        "ReadOnlyError": "it is a replica, which takes no writes",
        "OutOfMemoryError": "its memory is full, so it takes no writes",
        "BusyLoadingError": "it is still loading its data",
        "InvalidResponse": "who answers there is no Redis",
        "ResponseError": "it does not take what is written",
        "ConnectionError": "nobody answers there",
    }
)


async def look_at_redis(link: RedisLink) -> AsyncIterator[tuple[Verdict, str]]:
    """Use it as the service does. Raises ValueError, saying what is wrong without anybody's words."""
    info: Mapping[str, Any] = await _asked(link, "INFO")
    version = str(info.get("redis_version", ""))
    if info.get("redis_mode") == "cluster":
        yield Verdict.FAULT, "It is a cluster, which scatters what has to lie together: give a single server."
        return
    if _number(version) < OLDEST:
        yield Verdict.FAULT, f"Version {version or 'unknown'} is too old: {OLDEST[0]}.{OLDEST[1]} is the least."
    else:
        yield Verdict.OK, f"Version {version} answers."
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith(_SAFE):
        yield Verdict.OK, f"It keeps what it is given for as long as it is told to (maxmemory-policy {policy})."
    else:
        yield (
            Verdict.WARN,
            f"When its memory is full, it drops streams that are read and chats that go on (maxmemory-policy {policy})."
            " Set it to noeviction or volatile-ttl.",
        )
    await _asked(link, "XADD", _PROBE, "MAXLEN", "~", 1, "*", "f", "v")
    await _asked(link, "PEXPIRE", _PROBE, 1000)
    yield Verdict.OK, "It can be written to."


async def _asked(link: RedisLink, *command: str | int) -> Any:
    try:
        return await link.ask(*command)
    except (RedisAway, RedisRefused) as error:
        kinds = [kind.__name__ for kind in type(error.__cause__).__mro__]
        raise ValueError(next((_FAILURES[kind] for kind in kinds if kind in _FAILURES), "it cannot be used")) from error


def _number(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    parts = version.split(".")
    return tuple(int(part) for part in parts[:2] if part.isdecimal())
