"""Feeds held in this process: the folded text and the last events of a reply, until a minute after its end.

Bounded per reply, and in how many ended ones are kept, whatever readers do: they take copies, and the writer never
waits for them.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chatassist.domain.ports.replies import Delta, Ended, Event, Numbered, Replace, ReplyFeed

HELD_EVENTS = 256
HELD_SECONDS = 60.0
HELD_ENDED = 2_000


class Timer(Protocol):
    """Something that was scheduled."""

    def cancel(self) -> None:
        """Let it not happen; harmless when it has."""


@dataclass(slots=True)
class _Log:
    """One reply. `events` are the last ones, without gaps; `text` is everything folded."""

    last: int
    text: list[str] = field(default_factory=list)
    events: deque[Numbered] = field(default_factory=lambda: deque(maxlen=HELD_EVENTS))
    waiters: set[asyncio.Future[None]] = field(default_factory=set)
    ended: bool = False

    def add(self, event: Event) -> None:
        self.last += 1
        self.events.append(Numbered(self.last, event))
        match event:
            case Delta(text):
                self.text.append(text)
            case Replace(content):
                self.text = [content]
            case Ended():
                self.ended = True

    def tells(self, after: int) -> bool:
        """Whether something comes after `after`, or may come."""
        return not self.ended or after < self.last

    def since(self, after: int) -> Sequence[Numbered]:
        if after >= self.last or not self.events:
            return ()
        missed = self.events[0].seq - after - 1
        if missed <= 0:
            return [numbered for numbered in self.events if numbered.seq > after]
        return self._resync()

    def _resync(self) -> Sequence[Numbered]:
        """Return all text so far in place of the events, at the number of the last one that it covers."""
        newest = self.events[-1]
        end = [newest] if isinstance(newest.event, Ended) else []
        return [Numbered(self.last - len(end), Replace("".join(self.text), "resync")), *end]

    def wake(self) -> None:
        for waiter in self.waiters:
            _resolve(waiter)
        self.waiters.clear()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class MemoryReplyFeed(ReplyFeed):
    """Feeds of this process."""

    def __init__(self, *, later: Callable[[float, Callable[[], None]], Timer] | None = None) -> None:
        """`later(seconds, call)` schedules the end of a feed's keeping; by default the running loop does."""
        self._logs: dict[str, _Log] = {}
        self._ended: OrderedDict[str, Timer] = OrderedDict()  # longest ended first
        self._later = later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))

    async def open(self, reply_id: str, after: int) -> None:
        """Begin the feed at `after`; who waits on an earlier attempt is woken and reads on."""
        earlier = self._logs.get(reply_id)
        if timer := self._ended.pop(reply_id, None):
            timer.cancel()
        self._logs[reply_id] = _Log(last=after)
        if earlier:
            earlier.wake()

    async def append(self, reply_id: str, *events: Event) -> int:
        """Add events and wake whoever waits; what ended stays as it is until it is opened again."""
        log = self._logs.get(reply_id)
        if log is None or log.ended:
            return log.last if log else 0
        for event in events:
            log.add(event)
        log.wake()
        if log.ended:
            self._retire(reply_id, log)
        return log.last

    async def read(self, reply_id: str, after: int, wait: float) -> Sequence[Numbered] | None:
        """Return what came after `after`, waiting for it if need be."""
        log = self._logs.get(reply_id)
        now = asyncio.get_running_loop().time
        until = now() + wait
        while log is not None and log.tells(after):
            found = log.since(after)
            left = until - now()
            if found or left <= 0:
                return found
            await self._news(log, left)
            log = self._logs.get(reply_id, log)
        return None

    async def request_stop(self, reply_id: str) -> None:
        """Ask nobody: no other process can be reached from here."""

    async def stop_requests(self) -> AsyncIterator[str]:
        """Yield nothing, without end."""
        await asyncio.get_running_loop().create_future()
        yield ""  # never reached: it makes this a generator

    async def _news(self, log: _Log, wait: float) -> None:
        """Return when something is appended or the time is over; a plain future is half the price of a timeout."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        log.waiters.add(waiter)
        timer = loop.call_later(wait, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            log.waiters.discard(waiter)

    def _retire(self, reply_id: str, log: _Log) -> None:
        log.text = ["".join(log.text)]
        self._ended[reply_id] = self._later(HELD_SECONDS, lambda: self._forget(reply_id))
        if len(self._ended) > HELD_ENDED:
            self._forget(next(iter(self._ended)))

    def _forget(self, reply_id: str) -> None:
        self._ended.pop(reply_id).cancel()  # the timer holds the loop's memory until it is over
        del self._logs[reply_id]
