"""What a user used: counted by day, shown to himself."""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime

from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.runtime import Clock
from chatassist.domain.usage import Metering, Used

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """What was used on a day so far; at `resets_at` the next one begins."""

    day: date
    used: Used
    resets_at: datetime


class UsageService:
    """Counts what is not counted with a turn, and tells what was used."""

    def __init__(self, store: Store, metering: Metering, *, limiter: Limiter, clock: Clock) -> None:
        self._store = store
        self._metering = metering
        self._limiter = limiter
        self._clock = clock

    async def today(self, user: User) -> Today:
        """Return what the user used today. Raises TooManyReads."""
        await self._limiter.hit(Rule.READS, user.id)
        meter = self._metering.meter(user.openid, self._clock())
        used = await self._store.read(lambda tx: tx.usages.find(meter))
        resets_at = self._metering.calendar.end(meter.day).astimezone(UTC)
        return Today(day=meter.day, used=used, resets_at=resets_at)

    async def count(self, openid: str, used: Used) -> None:
        """Add to what a person used today. What cannot be counted is logged: that undoes nothing."""
        meter = self._metering.meter(openid, self._clock())
        try:
            await self._store.apply(lambda tx: tx.usages.count(meter, used))
        except StoreUnavailable as error:
            log.warning("use was not counted", extra={"detail": str(error)})
