"""This process's claim to be alive: a row that is renewed, and by which others judge the replies it left running."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.runtime import Runtime

T = TypeVar("T")

RENEW_SECONDS = 5.0
VALID_SECONDS = 15.0


class Lease:
    """An instance id with a date. An id found lapsed is given up: what ran under it is orphaned for good."""

    def __init__(self, store: Store, runtime: Runtime, *, retry: float = 1.0) -> None:
        """`retry`: seconds between tries of what is done `patiently`."""
        self._store = store
        self._retry = retry
        self.clock = runtime.clock
        self._new_id = runtime.new_id
        self._lock = asyncio.Lock()
        self._id = ""
        self._until = datetime.min.replace(tzinfo=UTC)
        self._begun = 0  # renewals, so that each has a number
        self._stored = 0  # the last one that is
        self.leaving = False
        """Whether the process is about to end, so that nothing is worth waiting for."""

    @property
    def held(self) -> bool:
        """Whether others still believe this process alive."""
        return self.clock() < self._until

    async def ensure(self) -> str:
        """Return the id to claim replies with. Raises StoreUnavailable when it lapsed and cannot be renewed."""
        if not self.held:
            async with self._lock:
                if not self.held:  # whoever held the lock before may have renewed it
                    await self._renew()
        return self._id

    def vouches_for(self, instance_id: str) -> bool:
        """Whether others still believe that this process runs what it claimed under that id."""
        return self.held and instance_id == self._id

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run `attempt` until the database answers, for as long as others believe this process alive.

        After that the reply in question is theirs to end, and StoreUnavailable is raised.
        """
        while True:
            try:
                return await attempt()
            except StoreUnavailable:
                if self.leaving or not self.held:
                    raise
            await asyncio.sleep(self._retry)

    async def renew(self) -> None:
        """Store that this process lives for another 15 s, under a new id when the old one lapsed."""
        async with self._lock:
            await self._renew()

    async def secure(self) -> None:
        """Return once all that this process has read so far outlasts a crash of the database. Raises StoreUnavailable.

        MySQL and MariaDB show a commit to others before their log is on disk, so what was read may be gone after a
        crash, without whoever wrote it having been told of a success. The log is written in its order: a commit of our
        own, begun now, takes everything before it along. The lease is the row for that: it really changes (an UPDATE
        that changes nothing writes no log; so not by `Store.apply`, which may run twice), nobody else waits for it,
        and nobody's ETag is made of it. Who asks while one renewal runs shares the next.
        """
        asked = self._begun
        async with self._lock:
            if self._stored <= asked:
                await self._renew()

    async def release(self) -> None:
        """Give the id up: whatever still runs under it is orphaned at once."""
        async with self._lock:
            instance, self._until = self._id, datetime.min.replace(tzinfo=UTC)
            if instance:
                await self._store.apply(lambda tx: tx.instances.remove(instance))

    async def _renew(self) -> None:
        instance = self._id if self.held else self._new_id()
        until = self.clock() + timedelta(seconds=VALID_SECONDS)
        self._begun += 1
        await self._store.write(lambda tx: tx.instances.renew(instance, until))
        self._id, self._until, self._stored = instance, until, self._begun
