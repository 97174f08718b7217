"""The store of one process without a database: dictionaries, with the same promises as the SQL one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

from chatassist.adapters.persistence.memory_archive import MemoryArchive
from chatassist.adapters.persistence.memory_chats import MemoryReplies, MemorySessions, MemoryTurns
from chatassist.adapters.persistence.memory_erasing import MemoryDeletions, MemoryErasures, MemoryJobs
from chatassist.adapters.persistence.memory_exports import MemoryExports
from chatassist.adapters.persistence.memory_people import MemoryLogins, MemoryUsages, MemoryUsers
from chatassist.adapters.persistence.memory_search import MemorySearch
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.ports.persistence import Instances, Store, Transaction

T = TypeVar("T")
Work = Callable[[Transaction], Awaitable[T]]


class MemoryStore(Store):
    """One writer at a time, on tables over the kept ones that are merged into them when the unit succeeds."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._turn = asyncio.Lock()
        self._units: set[asyncio.Task[Any]] = set()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a task of its own, so that the caller's cancellation cannot cut it in half."""
        unit = asyncio.create_task(self._commit(work))
        self._units.add(unit)
        unit.add_done_callback(self._units.discard)
        return await asyncio.shield(unit)

    async def apply(self, change: Work[T]) -> T:
        """Run `change` as a unit: here that costs nothing."""
        return await self.write(change)

    async def _commit(self, work: Work[T]) -> T:
        async with self._turn:
            tables = self._tables.overlaid()
            result = await work(transaction_on(tables))
            tables.merge()
            self._merged(tables)
            return result

    def _merged(self, changes: Tables) -> None:
        """Do what a kind of this store does after a unit of work."""

    async def read(self, query: Work[T]) -> T:
        """Run `query` on what was last committed."""
        return await query(transaction_on(self._tables))

    async def check(self) -> None:
        """Find nothing wrong, ever."""

    async def aclose(self) -> None:
        """Let the running units end."""
        await asyncio.gather(*self._units, return_exceptions=True)


class MemoryInstances(Instances):
    """`Instances` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def renew(self, instance_id: str, until: datetime) -> None:
        """Store a lease."""
        self._tables.instances[instance_id] = until

    async def is_alive(self, instance_id: str, now: datetime) -> bool:
        """Tell whether a lease lasts."""
        until = self._tables.instances.get(instance_id)
        return until is not None and until > now

    async def remove(self, instance_id: str) -> None:
        """Forget an instance."""
        self._tables.instances.pop(instance_id, None)

    async def purge(self, before: datetime) -> int:
        """Drop leases long over."""
        over = [instance for instance, until in self._tables.instances.items() if until < before]
        for instance in over:
            del self._tables.instances[instance]
        return len(over)


def transaction_on(tables: Tables) -> Transaction:
    """Return the view of these tables that a unit of work is given."""
    return Transaction(
        users=MemoryUsers(tables),
        logins=MemoryLogins(tables),
        usages=MemoryUsages(tables),
        sessions=MemorySessions(tables),
        turns=MemoryTurns(tables),
        replies=MemoryReplies(tables),
        instances=MemoryInstances(tables),
        deletions=MemoryDeletions(tables),
        erasures=MemoryErasures(tables),
        jobs=MemoryJobs(tables),
        exports=MemoryExports(tables),
        search=MemorySearch(tables),
        archive=MemoryArchive(tables),
    )
