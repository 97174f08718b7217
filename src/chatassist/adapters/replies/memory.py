"""Feeds held in this process: the folded text and the last events of a reply, until a minute after its end.

Bounded per reply, and in how many ended ones are kept, whatever readers do: they take copies, and the writer never
waits for them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from chatassist.adapters.replies.log import Log
from chatassist.domain.ports.replies import Event, Numbered, ReplyFeed

HELD_SECONDS = 60.0
HELD_ENDED = 2_000


class Timer(Protocol):
    """Something that was scheduled."""

    def cancel(self) -> None:
        """Let it not happen; harmless when it has."""


class MemoryReplyFeed(ReplyFeed):
    """Feeds of this process."""

    def __init__(self, *, later: Callable[[float, Callable[[], None]], Timer] | None = None) -> None:
        """`later(seconds, call)` schedules the end of a feed's keeping; by default the running loop does."""
        self._logs: dict[str, Log] = {}
        self._ended: OrderedDict[str, Timer] = OrderedDict()  # longest ended first
        self._later = later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))

    async def open(self, reply_id: str, after: int) -> None:
        """Begin the feed at `after`; who waits on an earlier attempt is woken and reads on."""
        earlier = self._logs.get(reply_id)
        if timer := self._ended.pop(reply_id, None):
            timer.cancel()
        self._logs[reply_id] = Log(last=after)
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
        until: float | None = None  # the clock is not asked where nothing is waited for
        while log is not None and (found := log.since(after)) is not None:
            if found:
                return found
            now = asyncio.get_running_loop().time()
            until = now + wait if until is None else until
            if now >= until:
                return found
            await log.news(until - now)
            log = self._logs.get(reply_id, log)
        return None

    async def last(self, reply_id: str, wait: float) -> int | None:
        """Return the last number; nobody else is asked."""
        log = self._logs.get(reply_id)
        return None if log is None or log.ended else log.last

    async def request_stop(self, reply_id: str) -> None:
        """Ask nobody: no other process can be reached from here."""

    async def stop_requests(self) -> AsyncIterator[str]:
        """Yield nothing, without end."""
        await asyncio.get_running_loop().create_future()
        yield ""  # never reached: it makes this a generator

    def _retire(self, reply_id: str, log: Log) -> None:
        log.text = ["".join(log.text)]
        self._ended[reply_id] = self._later(HELD_SECONDS, lambda: self._forget(reply_id))
        if len(self._ended) > HELD_ENDED:
            self._forget(next(iter(self._ended)))

    def _forget(self, reply_id: str) -> None:
        self._ended.pop(reply_id).cancel()  # the timer holds the loop's memory until it is over
        del self._logs[reply_id]
