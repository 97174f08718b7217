"""The connections of one store: first come, first served, and kept at hand from one unit to the next.

SQLAlchemy's pool makes them, ages them and throws them away. Taking one out of it and putting it back costs as much as
a short statement, though (40 µs), so what is taken out stays out for some seconds and serves many units.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chatassist.adapters.persistence.engine import close_engine

KEPT_SECONDS = 5.0
"""How long a connection may be kept from the pool, which renews those that are 45 s old; servers hang up after 60."""


@dataclass(frozen=True, slots=True)
class _Kept:
    db: AsyncConnection
    until: float  # of the loop's clock


class Connections:
    """Makes as many as are asked for at a time: that they are no more than the pool has is for who asks to see to."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._idle: list[_Kept] = []
        self._closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection that nobody else uses meanwhile. Raises what SQLAlchemy does where there is none.

        It is only kept if all went well. After any failure it goes back to the pool, which knows whether it is of use;
        where it was lost, so do all that are idle, for they are probably lost as well.
        """
        kept = await self._fresh()
        try:
            yield kept.db
        except BaseException:
            lost = kept.db.invalidated
            await kept.db.close()
            if lost:
                await self._give_back()
            raise
        if self._closed:
            await kept.db.close()
        else:
            self._idle.append(kept)

    async def aclose(self) -> None:
        """Close what is idle, and what is lent once it comes back."""
        self._closed = True
        await self._give_back()
        await close_engine(self._engine)

    async def _fresh(self) -> _Kept:
        """Take the one that was used last, unless it was kept for too long."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            kept = self._idle.pop()
            if now < kept.until:
                return kept
            await kept.db.close()
        return _Kept(await self._engine.connect(), now + KEPT_SECONDS)

    async def _give_back(self) -> None:
        idle, self._idle = self._idle, []
        for kept in idle:
            await kept.db.close()
