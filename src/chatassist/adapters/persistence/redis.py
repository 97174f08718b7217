"""A store that forgets, for several instances: what a user does not want kept lies in Redis, sealed, for a while."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from chatassist.adapters.persistence.memory import MemoryInstances
from chatassist.adapters.persistence.memory_archive import MemoryArchive
from chatassist.adapters.persistence.memory_erasing import MemoryDeletions, MemoryErasures, MemoryJobs
from chatassist.adapters.persistence.memory_exports import MemoryExports
from chatassist.adapters.persistence.memory_people import MemoryLogins, MemoryUsages, MemoryUsers
from chatassist.adapters.persistence.memory_search import MemorySearch
from chatassist.adapters.persistence.redis_chats import Loaded, RedisReplies, RedisSessions, RedisTurns
from chatassist.adapters.redis import RedisAway, RedisInDoubt, RedisLink, RedisRefused
from chatassist.adapters.seal import Seal
from chatassist.domain.errors import CommitUnknown, StoreUnavailable
from chatassist.domain.ports.persistence import Store, Transaction

T = TypeVar("T")
Work = Callable[[Transaction], Awaitable[T]]

IDLE = timedelta(minutes=30)
_RUNS = 8
_JITTER = 0.02  # seconds at most before a unit is repeated
_SECONDS_TO_CLOSE = 3.0


class RedisStore(Store):
    """Sessions, turns and replies, gone `idle` after the last turn began or ended; people and leases live elsewhere.

    Units of this process take turns. One whose documents another process changed meanwhile is repeated.
    """

    def __init__(self, link: RedisLink, seal: Seal, *, idle: timedelta = IDLE) -> None:
        self._link = link
        self._seal = seal
        self._seconds = idle.total_seconds()
        self._turn = asyncio.Lock()
        self._units: set[asyncio.Task[Any]] = set()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a task of its own, so that the caller's cancellation cannot cut it in half."""
        unit = asyncio.create_task(self._repeated(work))
        self._units.add(unit)
        unit.add_done_callback(self._units.discard)
        return await asyncio.shield(unit)

    async def apply(self, change: Work[T]) -> T:
        """Run `change` as a unit."""
        return await self.write(change)

    async def read(self, query: Work[T]) -> T:
        """Run `query` on what lies there, each session as it was at one moment."""
        try:
            return await query(_transaction(Loaded(lambda keys: self._link.ask("MGET", *keys), self._seal)))
        except (RedisAway, RedisRefused) as error:
            raise StoreUnavailable(str(error)) from error

    async def check(self) -> None:
        """Make sure that Redis answers."""
        try:
            await self._link.ask("PING")
        except (RedisAway, RedisRefused) as error:
            raise StoreUnavailable(str(error)) from error

    async def aclose(self) -> None:
        """Let the running units end, but not for long; the link is left to who opened it."""
        if self._units:
            await asyncio.wait(self._units, timeout=_SECONDS_TO_CLOSE)

    async def _repeated(self, work: Work[T]) -> T:
        try:
            for _ in range(_RUNS):
                async with self._turn:
                    done, result = await self._run(work)
                if done:
                    return result
                await asyncio.sleep(random.uniform(0, _JITTER))  # noqa: S311 - no secret
        except RedisInDoubt as error:
            raise CommitUnknown(str(error)) from error
        except (RedisAway, RedisRefused) as error:
            raise StoreUnavailable(str(error)) from error
        raise StoreUnavailable("others changed the same session again and again")

    async def _run(self, work: Work[T]) -> tuple[bool, T]:
        """Return whether the unit happened, and what it returned."""
        async with self._link.watching() as watch:
            loaded = Loaded(watch.get, self._seal)
            result = await work(_transaction(loaded))
            commands = loaded.changes(self._seconds)
            return not commands or await watch.commit(commands), result


def _transaction(loaded: Loaded) -> Transaction:
    return Transaction(
        users=MemoryUsers(loaded.tables),
        logins=MemoryLogins(loaded.tables),
        usages=MemoryUsages(loaded.tables),
        sessions=RedisSessions(loaded),
        turns=RedisTurns(loaded),
        replies=RedisReplies(loaded),
        instances=MemoryInstances(loaded.tables),
        deletions=MemoryDeletions(loaded.tables),
        erasures=MemoryErasures(loaded.tables),
        jobs=MemoryJobs(loaded.tables),
        exports=MemoryExports(loaded.tables),
        search=MemorySearch(loaded.tables),
        archive=MemoryArchive(loaded.tables),  # empty: what is not to be kept is in no list and no history
    )
