"""The way to Redis that several rooms share: bounded in time and connections, with its failures in two words of ours.

Nobody waits for a Redis that is away: the first failure is told to all, and one probe finds out when it is back.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import Any

log = logging.getLogger(__name__)

Command = Sequence[str | bytes | int]

PREFIX = "chatassist:"
"""Begins every key of ours."""

POOL = 16
PATIENCE = 1.0  # seconds for a connection, and for an answer: Redis is near, or of no use
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)  # seconds between probes, the last again and again
_STEADY_SECONDS = 10.0  # after that long it is well again, and what comes next is a new failure
_WRITE = ("SET", f"{PREFIX}probe", 1, "PX", 1000)  # who only reads is no help: a replica, a full memory or disk
_NO_WRITES = ("MISCONF", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN")


class RedisAway(Exception):
    """Redis does not answer, or takes no writes at all; nothing happened."""


class RedisInDoubt(RedisAway):
    """The connection was lost after the commands were sent: they happened, or not."""


class RedisRefused(Exception):
    """Redis is well, but refused this command."""


class RedisLink:
    """Connections to one Redis; made by `open_redis`. Connects at the first command."""

    def __init__(self, client: Any, *, unreachable: tuple[type[Exception], ...], changed: type[Exception]) -> None:
        """`client`: redis-py's. `unreachable`: what it raises for a failure, apart from one command's refusal.

        `changed`: what it raises when a watched key changed.
        """
        self._client = client
        self._unreachable = unreachable
        self._changed = changed
        self._places = asyncio.Semaphore(POOL)
        self._up = asyncio.Event()
        self._up.set()
        self._probe: asyncio.Task[None] | None = None
        self._tries = 0
        self._back_at = -math.inf

    @property
    def up(self) -> bool:
        """Whether Redis is believed to answer."""
        return self._up.is_set()

    async def recovered(self) -> None:
        """Return when Redis is believed to answer."""
        await self._up.wait()

    async def ask(self, *command: str | bytes | int) -> Any:
        """Run one command and return its answer. Raises RedisAway, RedisRefused."""
        async with self._connection():
            return await self._client.execute_command(*command)

    async def send(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Run commands in one round trip; in place of an answer stands a RedisRefused. Raises RedisAway."""
        async with self._connection(), self._client.pipeline(transaction=False) as batch:
            for command in commands:
                batch.execute_command(*command)
            return [self._judged(answer) for answer in await batch.execute(raise_on_error=False)]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Watch"]:
        """Open a unit of work that only happens if nothing it looked at was changed by others meanwhile.

        Raises RedisAway, RedisRefused.
        """
        async with self._connection(), self._client.pipeline(transaction=True) as batch:
            yield Watch(batch, self._changed)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._probe:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._client.aclose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        async with self._places:
            if not self.up:
                raise RedisAway("Redis is away")
            try:
                with _cancellable():
                    yield
            except RedisInDoubt as error:
                self._lost(error)
                raise
            except Exception as error:
                if not self._is_away(error):
                    raise
                raise self._translated(error) from error

    def _is_away(self, error: Exception) -> bool:
        return isinstance(error, self._unreachable) or _is_closed(error)

    def _translated(self, error: Exception) -> Exception:
        """Return our word for a failure, and tell everybody if it is not only this command's."""
        if _is_refusal(error):
            return RedisRefused(_first_word(error))
        self._lost(error)
        return RedisAway(f"Redis is away: {type(error).__name__}")

    def _lost(self, error: Exception) -> None:
        if self.up:
            self._up.clear()
            log.warning("redis is away", extra={"detail": type(error).__name__})
            self._probe = asyncio.create_task(self._until_back())

    def _judged(self, answer: Any) -> Any:
        if not isinstance(answer, Exception):
            return answer
        word = self._translated(answer)
        if isinstance(word, RedisAway):
            raise word from answer
        return word

    async def _until_back(self) -> None:
        now = asyncio.get_running_loop().time
        if now() - self._back_at > _STEADY_SECONDS:
            self._tries = 0
        while not self.up:
            await asyncio.sleep(_PAUSES[min(self._tries, len(_PAUSES) - 1)])
            self._tries += 1
            try:
                with _cancellable():
                    await self._client.execute_command(*_WRITE)
            except Exception as error:
                if not self._is_away(error):
                    raise
                continue
            self._back_at = now()
            self._up.set()
        log.info("redis is back")


class Watch:
    """One unit of work on one connection."""

    def __init__(self, batch: Any, changed: type[Exception]) -> None:
        self._batch = batch
        self._changed = changed

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values of keys as nobody changes them before `commit`, else that fails."""
        await self._batch.execute_command("WATCH", *keys)
        values: Sequence[bytes | None] = await self._batch.execute_command("MGET", *keys)
        return values

    async def commit(self, commands: Sequence[Command]) -> bool:
        """Run all commands, or none and return False when somebody changed what was looked at. Raises RedisInDoubt."""
        self._batch.multi()
        for command in commands:
            self._batch.execute_command(*command)
        try:
            await self._batch.execute()
        except self._changed:
            return False
        except Exception as error:
            if _is_refusal(error):
                raise
            raise RedisInDoubt("the connection was lost after the commands were sent") from error
        return True


def open_redis(url: str, *, patience: float = PATIENCE) -> RedisLink:
    """Return the way to the Redis at this `redis://` or `rediss://` address; nothing is connected yet.

    `patience`: seconds for a connection, and for an answer. Raises ValueError, in a sentence without the address.
    """
    if find_spec("redis") is None:
        raise ValueError("the package redis is not installed; install chatassist[redis]")
    from redis import asyncio as client  # noqa: PLC0415 - an extra, and 160 ms
    from redis import exceptions  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    try:
        pool = client.ConnectionPool.from_url(
            url,
            max_connections=POOL + 1,  # one is the probe's
            socket_connect_timeout=patience,
            socket_timeout=patience,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # of the same shape in every version of redis-py
        )
    except (ValueError, TypeError) as error:
        raise ValueError("it is no address of a Redis") from error
    unreachable = (OSError, exceptions.RedisError)
    return RedisLink(client.Redis.from_pool(pool), unreachable=unreachable, changed=exceptions.WatchError)


@contextmanager
def _cancellable() -> Iterator[None]:
    """Let no cancellation get lost: redis-py writes under `asyncio.wait_for`, which in Python 3.11 may swallow one."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def _is_closed(error: Exception) -> bool:
    """Tell whether a connection was lost just before it was written to: uvloop has no better word for that."""
    return isinstance(error, RuntimeError) and "handler is closed" in str(error)


def _is_refusal(error: Exception) -> bool:
    """Tell whether Redis works, and only this command does not."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ResponseError" not in kinds or kinds & {"ReadOnlyError", "OutOfMemoryError"}:
        return False
    return not str(error).startswith(_NO_WRITES) and "ClusterError" not in kinds


def _first_word(error: Exception) -> str:
    """Return an error's code; the rest may quote what was sent."""
    return str(error).partition(" ")[0]
