"""Copies of replies that other instances produce, fed from Redis by one reader for all of them.

A follower waits on a copy as it would on a feed of this process; none has a connection of its own.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chatassist.adapters.redis import RedisAway, RedisLink, RedisRefused
from chatassist.adapters.replies import redis_entries as entries
from chatassist.adapters.replies.log import Log
from chatassist.adapters.seal import Seal
from chatassist.domain.ports.replies import Numbered, Replace

MAX_COPIES = 5_000
IDLE_SECONDS = 15.0
"""How long a copy is fed that nobody reads: followers come back within 10."""

ENDED_SECONDS = 60.0
_BLOCK = 100  # ms that one XREAD waits, and so a new copy for its place in the next
_PACE = 0.05  # seconds between two XREADs that found something: naming a thousand streams costs 2 ms
_ENTRIES = 100  # of one stream in one XREAD
_SWEEP_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Copy:
    """A reply as far as it was read; `cursor` names the entry that was last."""

    log: Log
    cursor: bytes
    read_at: float
    ended_at: float = 0.0

    def idle(self, now: float) -> bool:
        """Whether it can go."""
        ended = self.log.ended and now - self.ended_at > ENDED_SECONDS
        return not self.log.waiters and (ended or now - self.read_at > IDLE_SECONDS)


class Copies:
    """Copies by reply id. They are let go when nobody reads them."""

    def __init__(self, link: RedisLink, seal: Seal) -> None:
        self._link = link
        self._seal = seal
        self._copies: dict[str, _Copy] = {}
        self._attaching: dict[str, asyncio.Task[_Copy | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._sweep_at = 0.0

    async def read(self, reply_id: str, after: int, wait: float) -> Sequence[Numbered] | None:
        """Do what `ReplyFeed.read` promises, for a reply of another instance; None at once while Redis is away."""
        now = asyncio.get_running_loop().time
        until = now() + wait
        while self._link.up:
            copy = self._copies.get(reply_id) or await self._attached(reply_id)
            if copy is None:
                return None
            self._ensure_reader()
            copy.read_at = now()
            found, left = copy.log.since(after), until - now()
            if found is None or found or left <= 0:
                return found
            await copy.log.news(left)
            copy.read_at = now()
        return None

    async def aclose(self) -> None:
        """Let everybody who waits go, and end what runs."""
        running = [task for task in (self._reader, *self._attaching.values()) if task]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._copies.clear()

    async def _attached(self, reply_id: str) -> _Copy | None:
        """Return a new copy, made once for all who ask meanwhile; None if there is none to be had."""
        task = self._attaching.get(reply_id)
        if task is None:
            task = self._attaching[reply_id] = asyncio.create_task(self._attach(reply_id))
            task.add_done_callback(lambda _: self._attaching.pop(reply_id))
        return await asyncio.shield(task)

    async def _attach(self, reply_id: str) -> _Copy | None:
        try:
            held = await self._link.ask("XRANGE", entries.key_of(reply_id), "-", "+")
        except (RedisAway, RedisRefused):
            return None
        now = asyncio.get_running_loop().time()
        if not held or not self._has_place(now):
            return None
        # The first entry is either an opening, or what is left of a stream too long to be kept.
        copy = self._copies[reply_id] = _Copy(Log(last=-1, whole=False), b"", now)
        self._take(reply_id, copy, held)
        return copy

    def _has_place(self, now: float) -> bool:
        if len(self._copies) >= MAX_COPIES:
            self._let_go(now)
        return len(self._copies) < MAX_COPIES

    def _let_go(self, now: float) -> None:
        for reply_id in [reply_id for reply_id, copy in self._copies.items() if copy.idle(now)]:
            del self._copies[reply_id]

    def _take(self, reply_id: str, copy: _Copy, found: Iterable[entries.Entry]) -> None:
        """Carry entries into the log and wake who waits."""
        for entry in found:
            copy.cursor = entry[0]
            number, opens = entries.number_of(entry)
            if opens:
                _begin(copy.log, number, whole=True)
                continue
            events = entries.events_of(self._seal, reply_id, entry)
            if not events:
                _begin(copy.log, number, whole=False)  # it may have said anything
                continue
            before = number - len(events)
            if before != copy.log.last:  # something is missing, unless all of it is replaced
                _begin(copy.log, before, whole=isinstance(events[0], Replace))
            for event in events:
                copy.log.add(event)
        if copy.log.ended:
            copy.ended_at = copy.ended_at or asyncio.get_running_loop().time()
        else:
            copy.ended_at = 0.0
        copy.log.wake()

    def _ensure_reader(self) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_forever())

    async def _read_forever(self) -> None:
        """Feed all copies until there is none."""
        now = asyncio.get_running_loop().time
        while self._copies:
            began = now()
            if began > self._sweep_at:
                self._sweep_at = began + _SWEEP_SECONDS
                self._let_go(began)
                continue
            try:
                found = await self._link.ask(*self._question())
            except (RedisAway, RedisRefused):
                for copy in self._copies.values():
                    copy.log.wake()  # who follows looks elsewhere meanwhile
                await self._link.recovered()
                await asyncio.sleep(_PACE)
                continue
            for key, news in found or ():
                reply_id = entries.reply_of(key)
                if known := self._copies.get(reply_id):
                    self._take(reply_id, known, news)
            if found:
                await asyncio.sleep(began + _PACE - now())

    def _question(self) -> tuple[str | bytes | int, ...]:
        keys = [entries.key_of(reply_id) for reply_id in self._copies]
        cursors = [copy.cursor for copy in self._copies.values()]
        return ("XREAD", "COUNT", _ENTRIES, "BLOCK", _BLOCK, "STREAMS", *keys, *cursors)


def _begin(log: Log, last: int, *, whole: bool) -> None:
    """Let a log begin after this number, with nothing earlier in it."""
    log.last, log.whole, log.ended = last, whole, False
    log.text = []
    log.events.clear()
