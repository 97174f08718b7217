"""The events of one reply as one process holds them: the folded text, the last events, and who waits for more."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatassist.domain.ports.replies import Delta, Ended, Event, Numbered, Replace

HELD_EVENTS = 256


@dataclass(slots=True)
class Log:
    """One reply. `events` are the last ones, without gaps; `text` is everything folded.

    `whole`: whether it is: a log that was picked up midway knows no text until something replaces all of it.
    """

    last: int
    whole: bool = True
    text: list[str] = field(default_factory=list)
    events: deque[Numbered] = field(default_factory=lambda: deque(maxlen=HELD_EVENTS))
    waiters: dict[asyncio.Future[None], float] = field(default_factory=dict)
    """Who waits, each until a time of the loop's clock."""
    timer: asyncio.TimerHandle | None = None
    ended: bool = False

    def add(self, event: Event) -> None:
        """Append an event; who waits is not woken yet."""
        self.last += 1
        self.events.append(Numbered(self.last, event))
        if isinstance(event, Delta):
            if self.whole:
                self.text.append(event.text)
        elif isinstance(event, Replace):
            self.text, self.whole = [event.content], True
        elif isinstance(event, Ended):
            self.ended = True

    def since(self, after: int) -> Sequence[Numbered] | None:
        """Return what came after `after`; None when nothing will come any more, or what came is not known."""
        if after >= self.last:
            return None if self.ended else ()
        begin = self.events[0].seq - 1 if self.events else self.last
        if after >= begin:
            if after == self.last - 1:  # nearly always
                return [self.events[-1]]
            return [self.events[-back] for back in range(self.last - after, 0, -1)]  # they have no gaps
        if not self.whole:
            return None
        return self._resync() if self.events else ()

    def _resync(self) -> Sequence[Numbered]:
        """Return all text so far in place of the events, at the number of the last one that it covers."""
        newest = self.events[-1]
        end = [newest] if isinstance(newest.event, Ended) else []
        return [Numbered(self.last - len(end), Replace("".join(self.text), "resync")), *end]

    async def news(self, wait: float) -> None:
        """Return when `wake` is called or the time is over.

        One timer serves all who wait, and stays when they are woken: one for each wait cost as much as all else here.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        until = self.waiters[waiter] = loop.time() + wait
        if self.timer is None or until < self.timer.when():
            self._set_timer(loop, until)
        try:
            await waiter
        finally:
            self.waiters.pop(waiter, None)

    def wake(self) -> None:
        """Let all who wait look again; after an end nobody waits, and a timer left would hold all of this."""
        for waiter in self.waiters:
            _resolve(waiter)
        self.waiters.clear()
        if self.ended and self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = loop.call_at(at, self._look_at_clock, loop)

    def _look_at_clock(self, loop: asyncio.AbstractEventLoop) -> None:
        self.timer, now = None, loop.time()
        for waiter in [waiter for waiter, until in self.waiters.items() if until <= now]:
            del self.waiters[waiter]
            _resolve(waiter)
        if self.waiters:
            self._set_timer(loop, min(self.waiters.values()))


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
