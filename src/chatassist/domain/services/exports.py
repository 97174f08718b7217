"""A user takes everything with him that is kept about him."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TypeVar

from chatassist.domain.errors import TooManyExports
from chatassist.domain.model import Login, Session, User
from chatassist.domain.ports.exports import START, Day, Entry, Exports
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.runtime import Clock
from chatassist.domain.usage import Metering

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose export it is, and when it began."""

    user: User
    at: datetime


Part = Owner | Day | Login | Session | Entry
"""The owner, then his days, then his logins, then each session, followed by its entries."""
Pages = AsyncGenerator[Sequence[Part], None]

AT_ONCE = 2
"""Exports of one user that may be under way, in one process."""
LONGEST = timedelta(minutes=10)
"""How long an export may take: whoever follows it gives up then, so that a refused one knows how long to wait."""

_ROWS = 200
_ROOM = 256 * 1024  # characters of texts in one page


class ExportService:
    """Reads page by page: between two of them nothing is held, however long the reader takes."""

    def __init__(self, store: Store, metering: Metering, *, limiter: Limiter, clock: Clock) -> None:
        self._store = store
        self._metering = metering
        self._limiter = limiter
        self._clock = clock
        self._begun: dict[str, list[datetime]] = {}  # by user: when each export that is under way began

    async def pages(self, user: User) -> Pages:
        """Yield everything kept about the user. Whoever follows it closes it, within `LONGEST`.

        What is saved meanwhile may be part of it. Raises, before anything else, TooManyReads and TooManyExports; at any
        page StoreUnavailable.
        """
        await self._limiter.hit(Rule.READS, user.id)
        async with self._place(user):
            yield [Owner(user=user, at=self._clock())]
            async for days in self._days(self._metering.pseudonym(user.openid)):
                yield days
            logins = self._rows(lambda exports, after: exports.logins(user.id, after, _ROWS), "", _id_of)
            async for page in logins:
                yield page
            async for talk in self._talks(user):
                yield talk
            log.info("exported", extra={"user_id": user.id})

    @asynccontextmanager
    async def _place(self, user: User) -> AsyncIterator[None]:
        begun = self._begun.setdefault(user.id, [])
        now = self._clock()
        if len(begun) >= AT_ONCE:
            raise TooManyExports(retry_after=max((begun[0] + LONGEST - now).total_seconds(), 0.0) + 1)
        begun.append(now)
        try:
            yield
        finally:
            begun.remove(now)
            if not begun:
                self._begun.pop(user.id, None)

    async def _days(self, subject: str) -> AsyncIterator[Sequence[Day]]:
        async for page in self._rows(lambda exports, after: exports.days(subject, after, _ROWS), date.min, _day_of):
            yield page

    async def _talks(self, user: User) -> AsyncIterator[Sequence[Part]]:
        async for sessions in self._rows(lambda exports, after: exports.sessions(user.id, after, _ROWS), "", _id_of):
            for session in sessions:
                async for page in self._talk(session):
                    yield page

    async def _talk(self, session: Session) -> AsyncIterator[Sequence[Part]]:
        """Yield a session, and all that was said in it."""
        head: Sequence[Part] = [session]
        after, more = START, True
        while more:
            page = await self._page(lambda exports, place: exports.entries(session, place, _ROOM), after)
            yield [*head, *page.entries]
            head, more = (), page.more
            after = page.entries[-1].place if page.entries else after

    async def _rows(
        self, read: Callable[[Exports, K], Awaitable[Sequence[V]]], after: K, key: Callable[[V], K]
    ) -> AsyncIterator[Sequence[V]]:
        full = True
        while full and (page := await self._page(read, after)):
            yield page
            after, full = key(page[-1]), len(page) == _ROWS

    async def _page(self, read: Callable[[Exports, K], Awaitable[T]], after: K) -> T:
        return await self._store.read(lambda tx: read(tx.exports, after))


def _day_of(day: Day) -> date:
    return day.day


def _id_of(kept: Login | Session) -> str:
    return kept.id
