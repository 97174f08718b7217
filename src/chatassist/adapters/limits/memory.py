"""Limits counted in this process. What is held is bounded, and no timer runs.

Not built on `limits`: its memory storage reads the wall clock and, at 100,000 subjects, spends 13 s of CPU a sweep.
"""

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType

from chatassist.domain.errors import Limited, TooManyLogins, TooManyReads, TooManySends, TooManyTranscriptions
from chatassist.domain.ports.limits import Limiter, Rule

REFUSALS: Mapping[Rule, type[Limited]] = MappingProxyType(
    {
        Rule.LOGINS: TooManyLogins,
        Rule.SENDS: TooManySends,
        Rule.READS: TooManyReads,
        Rule.SPEECH: TooManyTranscriptions,
    }
)
SECOND = 1_000_000_000  # nanoseconds: whole numbers, so that a retry on the very second is not refused by rounding
WINDOW = 60 * SECOND
SUBJECTS = 100_000  # per rule


class MemoryLimiter(Limiter):
    """Moving windows in memory. `per_minute`: uses a minute by rule; a rule with 0 or without a number is off.

    `monotonic` gives nanoseconds. More than `subjects` at once within a minute, and a rule forgets the one whose last
    use is oldest: under such a flood it is better to be lenient with one than to run out of memory.
    """

    def __init__(
        self,
        per_minute: Mapping[Rule, int],
        *,
        monotonic: Callable[[], int] = time.monotonic_ns,
        subjects: int = SUBJECTS,
    ) -> None:
        self._monotonic = monotonic
        self._windows = {rule: _Window(limit, subjects) for rule, limit in per_minute.items() if limit > 0}

    @property
    def remembered(self) -> int:
        """How many subjects are held, over all rules."""
        return sum(window.remembered for window in self._windows.values())

    async def hit(self, rule: Rule, subject: str) -> None:
        """Count one use. Atomic, because nothing is awaited."""
        window = self._windows.get(rule)
        wait = window.hit(subject, self._monotonic()) if window is not None else 0
        if wait > 0:
            raise REFUSALS[rule](retry_after=-(-wait // SECOND))  # rounded up


class _Window:
    """The uses of one rule within the last minute."""

    def __init__(self, limit: int, subjects: int) -> None:
        self._limit = limit
        self._subjects = subjects
        self._uses: OrderedDict[str, list[int]] = OrderedDict()  # by last use: the front is what may go first

    @property
    def remembered(self) -> int:
        return len(self._uses)

    def hit(self, subject: str, now: int) -> int:
        """Count a use and return 0, or return the nanoseconds until one is free."""
        uses = self._uses.setdefault(subject, [])
        del uses[: bisect_right(uses, now - WINDOW)]
        if len(uses) >= self._limit:
            return uses[0] + WINDOW - now
        uses.append(now)
        self._uses.move_to_end(subject)
        self._purge(now)
        return 0

    def _purge(self, now: int) -> None:
        """Forget two subjects at most: more than a hit can add, and never a long pause."""
        for _ in range(2):
            last_use = next(iter(self._uses.values()))[-1]
            if last_use <= now - WINDOW or len(self._uses) > self._subjects:
                self._uses.popitem(last=False)
