"""What an operator is told about a database: whether it answers, is ours, and behaves as the service needs it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sqlalchemy import URL, delete, false, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.failures import away
from chatassist.adapters.persistence.migrate import is_current, strange_tables
from chatassist.adapters.persistence.tables import InstanceRow
from chatassist.domain.diagnosis import Verdict

Looks = AsyncIterator[tuple[Verdict, str]]

_VARIABLES = text(
    "SHOW SESSION VARIABLES"
    " WHERE variable_name IN ('transaction_isolation', 'tx_isolation', 'log_bin', 'binlog_format')"
)  # an old MariaDB has the second name only


async def look_at_database(url: URL, *, migrated_at_start: bool) -> Looks:
    """Look at `database_url(...)` through a connection like the service's. Changes nothing; raises StoreUnavailable.

    `migrated_at_start`: whether the service itself brings the database up to date.
    """
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and not await asyncio.to_thread(Path(url.database or "").exists):
        yield _not_there(migrated_at_start)
        return
    engine = open_engine(url, pool_size=1)
    begun = asyncio.get_running_loop().time()
    try:
        async with engine.connect() as db:
            took = asyncio.get_running_loop().time() - begun
            async for found in _sqlite(db) if sqlite else _mysql(db, took):
                yield found
            async for found in _schema(db, migrated_at_start):
                yield found
    except (DBAPIError, OSError) as error:
        raise away(error) from error
    finally:
        await engine.dispose()


def _not_there(migrated_at_start: bool) -> tuple[Verdict, str]:
    if migrated_at_start:
        return Verdict.OK, "The SQLite file is not there yet; the first start makes it."
    return Verdict.FAULT, "The SQLite file is not there. Run `chatassist migrate`, which makes it."


async def _sqlite(db: AsyncConnection) -> Looks:
    mode = await db.scalar(text("PRAGMA journal_mode"))
    if mode == "wal":
        yield Verdict.OK, f"SQLite {await db.scalar(text('SELECT sqlite_version()'))} keeps a write-ahead log (WAL)."
    else:
        yield Verdict.FAULT, "SQLite can keep no write-ahead log (WAL) there. Put the file on a local disk."


async def _mysql(db: AsyncConnection, took: float) -> Looks:
    url = db.engine.url
    yield (
        Verdict.OK,
        f"Server {await db.scalar(text('SELECT version()'))} at {url.host}:{url.port or 3306} let us into the database"
        f" {url.database} after {took * 1000:.0f} ms.",
    )
    variables = {name.lower(): str(value) for name, value in (await db.execute(_VARIABLES)).all()}
    yield _isolation(variables)


def _isolation(variables: dict[str, str]) -> tuple[Verdict, str]:
    level = variables.get("transaction_isolation") or variables.get("tx_isolation")
    if level != "READ-COMMITTED":
        return Verdict.FAULT, f"Transactions are {level} instead of READ-COMMITTED: what stands between changes it."
    if variables.get("log_bin") == "ON" and variables.get("binlog_format") == "STATEMENT":
        return Verdict.FAULT, (
            "The server's binlog_format STATEMENT lets nobody write in READ-COMMITTED transactions."
            " Set it to ROW or MIXED."
        )
    return Verdict.OK, "Transactions are READ-COMMITTED."


async def _schema(db: AsyncConnection, migrated_at_start: bool) -> Looks:
    if await is_current(db):
        yield Verdict.OK, "The schema is this version's."
        if db.dialect.name == "mysql":
            yield _collation(await strange_tables(db))
    elif migrated_at_start:
        yield Verdict.OK, "The schema is not this version's yet; the next start brings it up to date."
    else:
        yield Verdict.FAULT, "The schema is not this version's. Run `chatassist migrate`."
        return
    yield await _writing(db)


def _collation(strange: Sequence[str]) -> tuple[Verdict, str]:
    if not strange:
        return Verdict.OK, "Texts are utf8mb4, compared by utf8mb4_bin."
    return Verdict.FAULT, (
        f"Tables with another collation than utf8mb4_bin: {', '.join(strange)}. For each, run:"
        " ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;"
    )


async def _writing(db: AsyncConnection) -> tuple[Verdict, str]:
    """Write nothing, which only who may write can do."""
    if db.dialect.name == "sqlite":
        await db.exec_driver_sql("PRAGMA busy_timeout = 1000")  # ms; nothing can interrupt this wait
        await db.exec_driver_sql("BEGIN IMMEDIATE")
        await db.exec_driver_sql("ROLLBACK")
    else:
        await db.execute(delete(InstanceRow).where(false()))
    return Verdict.OK, "It can be written."
