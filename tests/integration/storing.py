"""Opening stores and putting values into them, for tests that are about something else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.sql import SqlStore
from chatassist.domain.model import Session, User
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Turn
from tests.builders import a_session, a_user
from tests.fixtures.databases import AnyStore


@asynccontextmanager
async def opened(url: URL, *, pool_size: int = 10, patience: float = 10.0) -> AsyncIterator[SqlStore]:
    store = SqlStore(open_engine(url, pool_size=pool_size), patience=patience)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def connected(url: URL) -> AsyncIterator[AsyncConnection]:
    """A connection beside every store's."""
    engine = open_engine(url, pool_size=1)
    try:
        async with engine.connect() as db:
            yield db
    finally:
        await engine.dispose()


async def keep(store: AnyStore, *values: User | Session | Turn) -> None:
    async def work(tx: Transaction) -> None:
        for value in values:
            if isinstance(value, User):
                await tx.users.add(value)
            elif isinstance(value, Session):
                await tx.sessions.add(value)
            else:
                await tx.turns.add(value)

    await store.write(work)


async def keep_versions(store: AnyStore, *versions: Turn) -> None:
    """Store more versions of turns that are stored."""

    async def work(tx: Transaction) -> None:
        for version in versions:
            await tx.turns.add_version(version)

    await store.write(work)


async def turn_of(store: AnyStore, turn: Turn) -> Turn | None:
    """Return a turn as it is stored now."""
    return await store.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))


async def a_kept_session(store: AnyStore, **given: Any) -> Session:
    await keep(store, user := a_user(), session := a_session(user, **given))
    return session
