"""Ships the events of replies produced here to Redis, where other instances read them. Nobody waits for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatassist.adapters.redis import Command, RedisAway, RedisLink, RedisRefused
from chatassist.adapters.replies import redis_entries as entries
from chatassist.adapters.seal import Seal
from chatassist.domain.ports.replies import Ended, Event

INTERVAL = 0.05
"""Seconds between two shipments at least: all events of a reply in between are one entry."""

MAX_WAITING = 20_000
"""Events that may wait for a shipment, of all replies together."""

MAX_DUE = 5_000
"""Replies of which something may wait."""

_REFRESH_SECONDS = 30.0  # shorter than a stream outlives an end: an overtaken writer's end must not cut it off
_REPLIES_AT_ONCE = 100  # about 5 ms of sealing and packing, between two looks at everything else
_CLOSING_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Outbound:
    """A reply produced here. `events` wait: the last one has number `last`, and there are no gaps between them."""

    reply_id: str
    last: int
    opened: int | None
    events: list[Event] = field(default_factory=list)
    refresh_at: float = 0.0
    over: bool = False

    @property
    def waits(self) -> bool:
        return self.opened is not None or bool(self.events)


@dataclass(slots=True, eq=False)
class _Shipment:
    """What one reply has in a pipeline; `place`: which command adds the events."""

    outbound: _Outbound
    opened: int | None
    events: list[Event]
    place: int | None = None


class Shipper:
    """One flusher for all replies of this process. While Redis is away events are dropped, and readers notice."""

    def __init__(self, link: RedisLink, seal: Seal) -> None:
        self._link = link
        self._seal = seal
        self._replies: dict[str, _Outbound] = {}
        self._due: dict[str, _Outbound] = {}
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._closing = False

    def open(self, reply_id: str, after: int) -> None:
        """Tell that an attempt begins after this number; what an earlier one left unsaid is forgotten."""
        if earlier := self._replies.get(reply_id):
            self._waiting -= len(earlier.events)
        self._replies[reply_id] = opened = _Outbound(reply_id, after, after)
        self._want(opened)

    def append(self, reply_id: str, events: Sequence[Event]) -> None:
        """Take events of a reply opened here; after its end none."""
        outbound = self._replies.get(reply_id)
        if outbound is None or outbound.over or not events:
            return
        outbound.last += len(events)
        outbound.events += events
        outbound.over = isinstance(events[-1], Ended)
        self._waiting += len(events)
        if not self._link.up:
            self._drop(outbound)
        elif self._waiting > MAX_WAITING:
            for each in self._due.values():
                self._drop(each)
        if outbound.waits:
            self._want(outbound)

    async def aclose(self) -> None:
        """Ship what waits, but not for long."""
        self._closing = True
        if self._flusher:
            self._wanted.set()
            await asyncio.wait({self._flusher}, timeout=_CLOSING_SECONDS if self._link.up else 0)
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)

    def _want(self, outbound: _Outbound) -> None:
        self._due[outbound.reply_id] = outbound
        if len(self._due) > MAX_DUE:
            self._forget(next(iter(self._due.values())))
        self._wanted.set()
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_forever())

    def _drop(self, outbound: _Outbound) -> None:
        """Let go of what waits, but not of an end: who reads elsewhere has to learn it."""
        kept = outbound.events[-1:] if outbound.over else []
        self._waiting -= len(outbound.events) - len(kept)
        outbound.events = kept

    def _forget(self, outbound: _Outbound) -> None:
        self._waiting -= len(outbound.events)
        outbound.events, outbound.opened = [], None
        self._due.pop(outbound.reply_id, None)
        if outbound.over and self._replies.get(outbound.reply_id) is outbound:
            del self._replies[outbound.reply_id]

    async def _flush_forever(self) -> None:
        while self._due or not self._closing:
            self._wanted.clear()
            if not self._due:
                await self._wanted.wait()
            due, self._due = list(self._due.values()), {}
            for first in range(0, len(due), _REPLIES_AT_ONCE):
                await self._flush(due[first : first + _REPLIES_AT_ONCE])
            if not self._closing:
                await asyncio.sleep(INTERVAL)

    async def _flush(self, due: Sequence[_Outbound]) -> None:
        commands, shipments = self._packed(due)
        try:
            answers = await self._link.send(commands)
        except RedisAway:
            self._take_back(shipments)
            await self._link.recovered()
            for outbound in self._replies.values():
                outbound.refresh_at = 0.0  # whatever Redis held may be lost, and with it how long it is kept
            return
        for shipment in shipments:
            outbound = shipment.outbound
            if shipment.place is not None and isinstance(answers[shipment.place], RedisRefused):
                outbound.over = True  # overtaken by a higher number
                self._forget(outbound)
            elif outbound.over and not outbound.waits:
                self._forget(outbound)

    def _packed(self, due: Sequence[_Outbound]) -> tuple[list[Command], list[_Shipment]]:
        """Return the commands of one pipeline, and whose they are."""
        now = asyncio.get_running_loop().time()
        commands: list[Command] = []
        shipments = [_Shipment(outbound, outbound.opened, outbound.events) for outbound in due]
        for shipment in shipments:
            outbound = shipment.outbound
            outbound.opened, outbound.events = None, []
            self._waiting -= len(shipment.events)
            if shipment.opened is not None:
                commands.append(entries.opening(outbound.reply_id, shipment.opened))
            if shipment.events:
                shipment.place = len(commands)
                commands.append(entries.addition(self._seal, outbound.reply_id, outbound.last, shipment.events))
            if outbound.over or now >= outbound.refresh_at:
                outbound.refresh_at = now + _REFRESH_SECONDS
                seconds = entries.ENDED_SECONDS if outbound.over else entries.RUNNING_SECONDS
                commands.append(entries.keeping(outbound.reply_id, seconds))
        return commands, shipments

    def _take_back(self, shipments: Sequence[_Shipment]) -> None:
        """Let openings and ends wait again; whatever else was lost with the connection stays lost."""
        for shipment in shipments:
            outbound = shipment.outbound
            if self._replies.get(outbound.reply_id) is not outbound:
                continue
            if outbound.opened is None:
                outbound.opened = shipment.opened
            if not outbound.events and shipment.events and outbound.over:
                outbound.events = shipment.events[-1:]
                self._waiting += 1
            self._drop(outbound)
            if outbound.waits:
                self._want(outbound)
