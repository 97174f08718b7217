"""Jobs that this process does again and again: a name, a period, a function."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from chatassist.domain.errors import ReplyInterrupted, StoreUnavailable
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.replies.lease import RENEW_SECONDS, Lease
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import End

log = logging.getLogger(__name__)

REAP_SECONDS = 15.0
SAVE_SECONDS = 3.0
LOOK_SECONDS = 1.0
FORGET_SECONDS = 60.0
PURGE_SECONDS = 3600.0
FORGET_INSTANCES = timedelta(days=1)
FORGET_KEYS = timedelta(days=7)
"""How long the keys of deleted turns are still known."""
FORGET_UNSAVED_KEYS = timedelta(minutes=30)
"""And those of turns that were not to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something to do every so many seconds."""

    name: str
    seconds: float
    run: Callable[[], Awaitable[None]]


async def repeat(jobs: Sequence[Job]) -> None:
    """Run every job in its own rhythm until cancelled; one that fails is logged and tried again."""
    await asyncio.gather(*(_repeat(job) for job in jobs))


async def _repeat(job: Job) -> None:
    while True:
        try:
            await job.run()
        except StoreUnavailable:
            log.warning("job postponed: the database does not answer", extra={"job": job.name})
        except Exception:
            log.exception("job failed", extra={"job": job.name})
        await asyncio.sleep(job.seconds)


class Upkeep:
    """What keeps replies and logins tidy."""

    def __init__(self, stores: Stores, engine: ReplyEngine, lease: Lease) -> None:
        self._store = stores.saved
        self._unsaved = stores.unsaved
        self._engine = engine
        self._lease = lease
        self._clock = lease.clock

    def jobs(self) -> Sequence[Job]:
        """Return what is to be done, in every process: each job is harmless when several do it."""
        return (
            Job(name="renew lease", seconds=RENEW_SECONDS, run=self.renew),
            Job(name="reap orphans", seconds=REAP_SECONDS, run=self.reap),
            Job(name="save", seconds=SAVE_SECONDS, run=self._engine.save),
            Job(name="look for stopped", seconds=LOOK_SECONDS, run=self._engine.look_for_stopped),
            Job(name="hear stops", seconds=LOOK_SECONDS, run=self._engine.hear_stops),
            Job(name="forget", seconds=FORGET_SECONDS, run=self.forget),
            Job(name="purge", seconds=PURGE_SECONDS, run=self.purge),
        )

    async def renew(self) -> None:
        """Renew the lease; where it lapsed, even if it is held again under a new id, others end our replies."""
        try:
            await self._lease.renew()
        finally:
            self._engine.interrupt_lapsed()

    async def reap(self) -> None:
        """End the replies of processes that went away."""
        now = self._clock()
        end = End.failure(ReplyInterrupted(), now)
        if count := await self._store.apply(lambda tx: tx.replies.finish_orphans(now, end)):
            log.warning("replies of a vanished process ended", extra={"count": count})

    async def forget(self) -> None:
        """Drop keys of unsaved turns that were deleted; a store that forgets does so whenever it is used, as here."""
        before = self._clock() - FORGET_UNSAVED_KEYS
        while await self._unsaved.apply(lambda tx: tx.turns.purge(before)):
            pass

    async def purge(self) -> None:
        """Drop logins that expired, instances that are long gone, and keys of turns that were deleted long ago."""
        now = self._clock()

        async def work(tx: Transaction) -> int:
            await tx.instances.purge(now - FORGET_INSTANCES)
            return await tx.logins.purge(now) + await tx.turns.purge(now - FORGET_KEYS)

        while await self._store.write(work):
            pass
