"""The only room that knows everyone. These functions are what the command line may ask of it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from chatassist.adapters.closing import close
from chatassist.adapters.persistence.migrate import migrate as migrate_database
from chatassist.container.checks import checks_of
from chatassist.container.known_vendors import known_vendors
from chatassist.container.speech import warm
from chatassist.container.wiring import Container, url_of
from chatassist.domain.diagnosis import Finding, examine
from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.replies.lease import Lease
from chatassist.domain.services import Services
from chatassist.domain.upkeep import repeat
from chatassist.settings import SQLITE_DEFAULT, Settings

RELEASE_SECONDS = 0.5


async def migrate(settings: Settings) -> None:
    """Bring the database to this version. Raises StoreUnavailable or ValueError with what to do about it."""
    await migrate_database(url_of(settings))


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open everything, and close it in reverse. Raises StoreUnavailable or ValueError where it cannot be opened.

    Only the SQLite default is migrated here; any other database that is behind refuses the start.
    """
    container = Container(settings=settings)
    if settings.database.url == SQLITE_DEFAULT:
        await migrate(settings)
    async with AsyncExitStack() as stack:
        services = container.services()
        held = (container.store, container.http, container.model, container.transcriber, container.listener)
        for built in (
            *container.redis(),
            *container.title_models(),
            *(provider() for provider in (*held, container.unsaved_store, container.feed)),
        ):
            stack.push_async_callback(close, built)
        await services.check()
        await container.lease().ensure()
        stack.push_async_callback(_release, container.lease())
        stack.push_async_callback(services.drain, 0)
        await stack.enter_async_context(_running(repeat(container.upkeep().jobs())))
        warm(container.transcriber())
        yield services


async def diagnose(settings: Settings, *, patience: float, vendor: str | None = None) -> AsyncGenerator[Finding, None]:
    """Try everything that is configured as the service would use it, or all that one vendor can do.

    `patience`: seconds that one check may take. Raises ValueError where no vendor is configured under that name.
    """
    checks = checks_of(settings, Container(settings=settings), vendor)
    async with aclosing(examine(checks, patience=patience)) as findings:
        async for finding in findings:
            yield finding


def vendors() -> Sequence[Mapping[str, str]]:
    """Return a row of words for each kind of AI vendor that is known; see `known_vendors`."""
    return known_vendors()


async def _release(lease: Lease) -> None:
    """Tell the others that we are gone; where the database is away, they find out when the lease lapses."""
    with contextlib.suppress(StoreUnavailable, TimeoutError):
        await asyncio.wait_for(lease.release(), RELEASE_SECONDS)


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
