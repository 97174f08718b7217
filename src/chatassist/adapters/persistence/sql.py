"""Units of work on a SQL database: begun, committed, repeated and bounded here, and nowhere else."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from chatassist.adapters.persistence.connections import Connections
from chatassist.adapters.persistence.failures import away, is_defect, is_lost, is_repeatable
from chatassist.adapters.persistence.migrate import check_schema
from chatassist.adapters.persistence.prepared import say
from chatassist.adapters.persistence.sql_archive import SqlArchive
from chatassist.adapters.persistence.sql_chats import SqlTurns
from chatassist.adapters.persistence.sql_deletions import SqlDeletions
from chatassist.adapters.persistence.sql_erasing import SqlErasures, SqlJobs
from chatassist.adapters.persistence.sql_exports import SqlExports
from chatassist.adapters.persistence.sql_people import SqlLogins, SqlUsages, SqlUsers
from chatassist.adapters.persistence.sql_replies import SqlInstances, SqlReplies
from chatassist.adapters.persistence.sql_search import SqlSearch
from chatassist.adapters.persistence.sql_sessions import SqlSessions
from chatassist.domain.errors import CommitUnknown, StoreUnavailable
from chatassist.domain.ports.persistence import Store, Transaction

T = TypeVar("T")
Work = Callable[[Transaction], Awaitable[T]]

_RUNS = 3  # of one unit in all
_SECONDS_TO_CLOSE = 0.5
_JITTER = 0.05  # s; so that two that collided do not collide again


class SqlStore(Store):
    """SQLite, MySQL or MariaDB. `patience`: seconds that one unit or query may take in all, waiting included."""

    def __init__(self, engine: AsyncEngine, *, patience: float = 10.0) -> None:
        self._connections = Connections(engine)
        self._patience = patience
        self._sqlite = sqlite = engine.dialect.name == "sqlite"
        self._begin = "BEGIN IMMEDIATE" if sqlite else "BEGIN"  # a read that turns into a write fails at once in WAL
        pool = engine.pool
        # SQLAlchemy's pool wakes its waiters in no order, and SQLite's lock does too: these queues are first come.
        self._readers = asyncio.Semaphore(pool.size() if isinstance(pool, QueuePool) else 1)
        self._writers = asyncio.Semaphore(1) if sqlite else self._readers
        self._units: set[asyncio.Task[Any]] = set()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a task of its own, so that the caller's cancellation cannot cut it in half."""
        return await self._shielded(self._bounded(self._writers, self._commit, work))

    async def apply(self, change: Work[T]) -> T:
        """Run `change` in AUTOCOMMIT: one round trip instead of three. On SQLite some take several statements."""
        run = self._commit if self._sqlite else _ask
        return await self._shielded(self._bounded(self._writers, run, change))

    async def read(self, query: Work[T]) -> T:
        """Run `query` statement by statement."""
        return await self._bounded(self._readers, _ask, query)

    async def check(self) -> None:
        """Make sure that the database answers, with the schema and collation that this version expects."""

        async def look(db: AsyncConnection, _: None) -> None:
            await check_schema(db)

        await self._bounded(self._readers, look, None)

    async def aclose(self) -> None:
        """Let the running units end, but not for long, then close every connection, a late one's when it ends."""
        if self._units:
            await asyncio.wait(self._units, timeout=_SECONDS_TO_CLOSE)
        await self._connections.aclose()

    async def _shielded(self, running: Coroutine[Any, Any, T]) -> T:
        unit = asyncio.create_task(running)
        self._units.add(unit)
        unit.add_done_callback(self._units.discard)
        return await asyncio.shield(unit)

    async def _bounded(
        self, queue: asyncio.Semaphore, run: Callable[[AsyncConnection, Any], Awaitable[T]], work: Any
    ) -> T:
        """Give a run a connection and an end; a cancelled wait makes the driver close the connection."""
        try:
            async with asyncio.timeout(self._patience), queue:
                return await self._repeated(run, work)
        except TimeoutError as error:
            raise StoreUnavailable(f"the database did not answer within {self._patience:g} s") from error

    async def _repeated(self, run: Callable[[AsyncConnection, Any], Awaitable[T]], work: Any) -> T:
        for left in reversed(range(_RUNS)):
            try:
                async with self._connections.one() as db:
                    return await run(db, work)
            except (DBAPIError, OSError) as error:
                if is_defect(error):
                    raise
                if not left or not is_repeatable(error):
                    raise away(error) from error
                if not is_lost(error):
                    await asyncio.sleep(random.uniform(0, _JITTER))  # noqa: S311 - no secret
            except NoConnectionFree as error:
                raise away(error) from error
        raise AssertionError  # the last run returned or raised

    async def _commit(self, db: AsyncConnection, work: Work[T]) -> T:
        """Run `work` between BEGIN and COMMIT; leave no transaction open on the connection."""
        committing = False
        try:
            await say(db, self._begin)
            result = await work(_transaction(db))
            committing = True
            await say(db, "COMMIT")
        except BaseException as error:
            await _undo(db, error)
            if committing:
                raise CommitUnknown("the connection was lost during COMMIT") from error
            raise
        return result


async def _ask(db: AsyncConnection, query: Work[T]) -> T:
    return await query(_transaction(db))


async def _undo(db: AsyncConnection, error: BaseException) -> None:
    """Roll back; where that cannot be trusted (cancelled, lost) close the connection, and the server does it."""
    if db.invalidated:
        return
    if isinstance(error, Exception):
        try:
            await db.exec_driver_sql("ROLLBACK")
        except (SQLAlchemyError, OSError):
            pass  # it is closed below
        else:
            return
    await db.invalidate()


def _transaction(db: AsyncConnection) -> Transaction:
    return Transaction(
        users=SqlUsers(db),
        logins=SqlLogins(db),
        usages=SqlUsages(db),
        sessions=SqlSessions(db),
        turns=SqlTurns(db),
        replies=SqlReplies(db),
        instances=SqlInstances(db),
        deletions=SqlDeletions(db),
        erasures=SqlErasures(db),
        jobs=SqlJobs(db),
        exports=SqlExports(db),
        search=SqlSearch(db),
        archive=SqlArchive(db),
    )
