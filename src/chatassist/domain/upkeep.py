"""Jobs that this process does again and again: a name, a period, a function."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

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
PURGE_SECONDS = 60.0
LEADING = timedelta(minutes=3)
"""For how long after its last portion the process that purges is not replaced by another."""
FORGET_INSTANCES = timedelta(days=1)
FORGET_KEYS = timedelta(days=7)
"""How long the keys of deleted turns are still known."""
FORGET_UNSAVED_KEYS = timedelta(minutes=30)
"""And those of turns that were not to be kept."""
FINISH_ERASING = timedelta(minutes=1)
"""How long whoever deletes an account is left to erase it alone."""


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
        """Return what is to be done, in every process: each job is harmless when several do it.

        The purge is one process's, as long as that lives.
        """
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
        """Erase for good what has to go, if no other process does that, portion by portion.

        What is left when this process stops in between, its successor erases.
        """
        owner = await self._lease.ensure()
        while await self._purge_portion(owner, self._clock()):
            pass

    async def _purge_portion(self, owner: str, now: datetime) -> bool:
        async def work(tx: Transaction) -> bool:
            return await tx.jobs.take("purge", owner, now, now + LEADING) and await _purge(tx, now)

        return await self._store.write(work)


async def _purge(tx: Transaction, now: datetime) -> bool:
    """Erase a portion; False when everything is done."""
    if deletion_id := await tx.erasures.overdue(now):
        await tx.erasures.erase_deletion(deletion_id)
        return True
    if user_id := await tx.erasures.unfinished(now - FINISH_ERASING):
        await tx.erasures.erase_account(user_id)
        return True
    await tx.instances.purge(now - FORGET_INSTANCES)
    return await tx.logins.purge(now) + await tx.turns.purge(now - FORGET_KEYS) > 0
