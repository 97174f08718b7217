"""Bringing a database to this version's schema, and telling whether it is there, by Alembic without an ini file."""

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from chatassist.adapters.persistence.engine import SECONDS_TO_CONNECT, close_dead_lines
from chatassist.adapters.persistence.failures import away, code_of
from chatassist.adapters.persistence.tables import Row
from chatassist.domain.errors import StoreUnavailable

_SECONDS_FOR_ANOTHER = 60  # that migrates at the same moment
ALWAYS_THERE = "information_schema"  # a database that every account may connect to
_DENIED = {1044, 1045, 1142, 1227}
_STRANGE_COLLATIONS = text(
    "SELECT DISTINCT table_name FROM information_schema.columns"
    " WHERE table_schema = database() AND table_name IN :ours AND collation_name <> 'utf8mb4_bin' ORDER BY table_name"
)


class SchemaBehind(StoreUnavailable):
    """The database is not what this version of the service expects; an operator has to act."""


async def migrate(url: URL) -> None:
    """Bring the database to the newest revision, creating it on MySQL when it is missing; several may try at once.

    Raises StoreUnavailable; its sentence holds the line of SQL to run when the account may not create the database.
    """
    try:
        if url.get_backend_name() == "sqlite":
            await _upgrade_sqlite(url)
        else:
            await _upgrade_mysql(url)
    except CommandError as error:  # the stored revision is none of ours
        raise StoreUnavailable(
            "the database has a schema that this version does not know: is it a newer one's?"
        ) from error
    except (DBAPIError, OSError) as error:
        raise away(error) from error


async def check_schema(db: AsyncConnection) -> None:
    """Raise SchemaBehind unless revision and collation are this version's."""
    if not await is_current(db):
        raise SchemaBehind("the database schema is not this version's: run `chatassist migrate`")
    if db.dialect.name == "mysql" and await strange_tables(db):
        raise SchemaBehind("the database's tables must have the collation utf8mb4_bin")


async def strange_tables(db: AsyncConnection) -> Sequence[str]:
    """Return our tables whose collation folds what has to be told apart; asks MySQL, SQLite has no such tables."""
    return (await db.scalars(_STRANGE_COLLATIONS.bindparams(ours=tuple(Row.metadata.tables)))).all()


async def is_current(db: AsyncConnection) -> bool:
    """Tell whether the database has the newest revision's schema."""
    expected = await asyncio.to_thread(newest_revision)
    return await db.run_sync(_stored_revision) == expected


@functools.cache
def newest_revision() -> str | None:
    """Return the name of the newest revision; reads the disk the first time."""
    return ScriptDirectory.from_config(configuration()).get_current_head()


def configuration(connection: Connection | None = None) -> Config:
    """Return what Alembic's commands want, on this connection; it says nothing on the terminal."""
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _stored_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    command.upgrade(configuration(connection), "head")


@asynccontextmanager
async def _engine(url: URL, limits: dict[str, int]) -> AsyncIterator[AsyncEngine]:
    """Open an engine for one migration; nothing is left open, and no statement is cut however long it takes."""
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=limits)
    if engine.dialect.name == "mysql":
        close_dead_lines(engine)
    try:
        yield engine
    finally:
        await engine.dispose()


async def _upgrade_sqlite(url: URL) -> None:
    """Upgrade in one transaction that takes the write lock first; foreign keys stay off, batches copy tables."""
    await asyncio.to_thread(Path(url.database or "").parent.mkdir, parents=True, exist_ok=True)
    async with _engine(url, {"timeout": _SECONDS_FOR_ANOTHER}) as engine:

        @event.listens_for(engine.sync_engine, "connect")
        def begin_nothing(connection: Any, _record: Any) -> None:
            connection.isolation_level = None

        async with engine.connect() as db:
            await _use_wal(db)
            await db.exec_driver_sql("BEGIN IMMEDIATE")
            await db.run_sync(_upgrade)
            await db.commit()


async def _use_wal(db: AsyncConnection) -> None:
    """Make the file keep a write-ahead log from now on; while anybody writes, SQLite refuses without waiting."""
    for left in reversed(range(_SECONDS_FOR_ANOTHER * 20)):
        try:
            await db.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError:
            if not left:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def _upgrade_mysql(url: URL) -> None:
    """Upgrade under a lock of the server, held by a connection to another database."""
    limits = {"connect_timeout": SECONDS_TO_CONNECT}
    async with _engine(url.set(database=ALWAYS_THERE), limits) as server, server.connect() as guard:
        name = f"migrate.{url.database}"[:64]
        if not await guard.scalar(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": _SECONDS_FOR_ANOTHER}):
            raise StoreUnavailable("another migration of the same database is running")
        await _create_database(guard, url)
        async with _engine(url, limits) as engine, engine.connect() as db:
            await db.run_sync(_upgrade)
            await db.commit()


async def _create_database(guard: AsyncConnection, url: URL) -> None:
    known = text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name")
    if await guard.scalar(known, {"name": url.database}):
        return
    quoted = guard.dialect.identifier_preparer.quote_identifier(url.database or "")
    creation = f"CREATE DATABASE {quoted} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    try:
        await guard.exec_driver_sql(creation.replace("%", "%%"))
    except OperationalError as error:
        if code_of(error) not in _DENIED:
            raise
        account = str(await guard.scalar(text("SELECT CURRENT_USER()"))).replace("@", "'@'")
        raise StoreUnavailable(
            "the database is missing and this account may not create it; let an administrator run:"
            f" {creation}; GRANT ALL ON {quoted}.* TO '{account}';"
        ) from error
