"""Follows a reply: to see it grow, or only its end. All read the same feed; what no feed holds, the row says."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from chatassist.domain.errors import MessageNotFound, ReplyInterrupted, ReplyNotStored, ShuttingDown
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace, ReplyFeed
from chatassist.domain.replies.ends import Ends
from chatassist.domain.replies.lease import Lease
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import End, Reply, Status, Turn

T = TypeVar("T")

LOOK_AGAIN = 0.5
"""Seconds between looks at the row of a reply that runs, but whose feed is not held here; later up to four times so."""
SILENCE = 10.0
"""Seconds of silence after which a follower is told that nothing came."""
ASKING = 0.8
"""Seconds that whoever produces a reply elsewhere gets to say how far it has come: a refusal is due within one."""
FRESH = timedelta(seconds=60)
"""How long after a turn was accepted or ended a row that says so may not be on the database's disk yet. Whoever stores
it gives up after 25 s (a lease's and a unit's patience); the rest is for clocks that differ, and a slow disk."""


class Follower:
    """Reads replies, from a feed where one is held, else from the store."""

    def __init__(
        self, stores: Stores, feed: ReplyFeed, lease: Lease, ends: Ends, *, look_again: float = LOOK_AGAIN
    ) -> None:
        self._stores = stores
        self._feed = feed
        self._lease = lease
        self._clock = lease.clock
        self._ends = ends
        self._look_again = look_again
        self._closing = False
        self._waits: set[asyncio.Timeout] = set()

    def close(self) -> None:
        """End at once what follows replies of other processes: those of this one have ended by now."""
        self._closing = True
        for wait in self._waits:
            if not wait.expired():  # closed before, and on its way out
                wait.reschedule(0)

    async def may_have_told(self, turn: Turn, after: int) -> bool:
        """Tell whether a reply that runs elsewhere has come to this number, or nobody knows how far it has come."""
        reply = turn.reply
        if after <= max(reply.seq, reply.first_seq) or self._lease.vouches_for(reply.instance_id):
            return True
        last = await self._waited(turn, self._feed.last(reply.id, ASKING))
        return last is None or last < reply.first_seq or after <= last  # an earlier attempt's producer may not know

    async def follow(self, turn: Turn, after: int) -> AsyncGenerator[Sequence[Numbered], None]:
        """Yield what came after number `after`, then what comes as it comes, until an Ended; () at every SILENCE.

        Raises ShuttingDown or StoreUnavailable where only this following breaks, and MessageNotFound once deleted.
        """
        quiet = 0.0
        async with aclosing(self._steps(turn, after)) as steps:
            async for events, waited in steps:
                quiet += waited
                if events or quiet >= SILENCE:
                    yield events
                    quiet = 0.0
                if events and isinstance(events[-1].event, Ended):
                    return

    async def _steps(self, turn: Turn, after: int) -> AsyncGenerator[tuple[Sequence[Numbered], float], None]:
        """Yield what each look gave, and how many seconds it waited; without end, but for the reply's."""
        pause, told = self._look_again, False
        while True:
            here = self._lease.vouches_for(turn.reply.instance_id)
            wait = SILENCE
            reading = self._feed.read(turn.reply.id, after, wait)
            found = await (reading if here else self._waited(turn, reading))  # once for every delta
            if found:
                found = _as_stored(turn.reply, _to_end(found), after)
                yield found, 0.0
                after, pause = found[-1].seq, self._look_again
                continue
            if found is None or not here:
                turn = await self._shown(turn)
                if rest := _rest(turn.reply, after, told=told):
                    yield rest, 0.0
                    after, told = rest[-1].seq, True
            if found is None:
                await self._waited(turn, asyncio.sleep(wait := pause))
                pause = min(pause * 1.5, 4 * self._look_again)
            yield (), wait

    async def _waited(self, turn: Turn, waiting: Awaitable[T]) -> T:
        """Await something that tells of a reply. Raises ShuttingDown once closed, unless it is produced here."""
        if self._lease.vouches_for(turn.reply.instance_id):
            return await waiting
        try:
            async with asyncio.timeout(0 if self._closing else None) as wait:
                self._waits.add(wait)
                return await waiting
        except TimeoutError:
            raise ShuttingDown from None
        finally:
            self._waits.discard(wait)

    async def settle(self, turn: Turn, seconds: float) -> Turn:
        """Return the turn once its reply has ended, or as it stands after so many seconds.

        A reply without a feed here runs elsewhere, or was claimed this very moment: its row is looked at again.
        """
        now = asyncio.get_running_loop().time
        until, pause = now() + seconds, self._look_again
        while True:
            seen = await self._watched(turn, until) or await self._shown(turn)
            left = until - now()
            if seen.reply.status is not Status.RUNNING or left <= 0 or self._closing:
                return seen
            with suppress(ShuttingDown):
                await self._waited(turn, asyncio.sleep(min(left, pause)))
            pause = min(pause * 1.5, 4 * self._look_again)

    async def _watched(self, turn: Turn, until: float) -> Turn | None:
        """Return the turn as its feed shows it, at its end or at that time of the loop; None where none is held.

        None as well where it is silent and produced elsewhere: whether it still is, its row tells.
        """
        now = asyncio.get_running_loop().time
        after, pieces = turn.reply.first_seq, [turn.reply.content]
        while (found := await self._heard(turn, after, until)) is not None:
            if found and after == turn.reply.first_seq:
                pieces = []  # the feed tells it from the beginning
            for numbered in _to_end(found):
                after = numbered.seq
                match numbered.event:
                    case Delta(text):
                        pieces.append(text)
                    case Replace(content):
                        pieces = [content]
                    case Ended(end):
                        return replace(turn, reply=_so_far(turn.reply, pieces).ended(end))
            if not found:
                over = self._closing or now() >= until
                return replace(turn, reply=_so_far(turn.reply, pieces)) if over else None
        return None

    async def _heard(self, turn: Turn, after: int, until: float) -> Sequence[Numbered] | None:
        """Read on until that time of the loop; elsewhere for a SILENCE at most, and not when closed."""
        wait = max(until - asyncio.get_running_loop().time(), 0.0)
        if self._lease.vouches_for(turn.reply.instance_id):
            return await self._feed.read(turn.reply.id, after, wait)
        try:
            return await self._waited(turn, self._feed.read(turn.reply.id, after, min(wait, SILENCE)))
        except ShuttingDown:
            return ()

    async def _shown(self, turn: Turn) -> Turn:
        """Return the turn as its store holds it; an end, once no crash takes it back. Raises MessageNotFound."""
        stored = await self.stored(turn.reply.id, turn.message.user_id)
        return stored if stored.reply.status is Status.RUNNING else await self.secured(stored)

    async def secured(self, turn: Turn) -> Turn:
        """Return a turn that was read from its store, once what it tells outlasts a crash of the database.

        For who is told that a turn was accepted, or how it ended, without having it from the process that stored that.
        An attempt after the first may be taken back: then the turn is found failed, as it was, and is sent again.
        """
        changed_at = turn.reply.ended_at or turn.reply.created_at
        if turn.saved and self._clock() - changed_at < FRESH:
            await self._lease.secure()
        return turn

    async def stored(self, reply_id: str, user_id: str) -> Turn:
        """Return the turn as its store holds it. Raises MessageNotFound.

        A running reply whose instance is no longer believed alive is interrupted, and the first who sees it says so.
        """
        now = self._clock()

        async def look(tx: Transaction) -> tuple[Turn | None, bool]:
            turn = await tx.turns.find(reply_id, user_id)
            if turn is None or turn.reply.status is not Status.RUNNING:
                return turn, False
            return turn, not await tx.instances.is_alive(turn.reply.instance_id, now)

        turn, orphaned = await self._stores.saved.read(look)
        if turn is None:
            turn = await self._stores.unsaved.read(lambda tx: tx.turns.find(reply_id, user_id))
            if turn is None:
                raise MessageNotFound
            orphaned = turn.reply.status is Status.RUNNING and await self._is_orphaned(turn.reply.instance_id)
        return await self._ends.from_outside(turn, End.failure(ReplyInterrupted(), now)) if orphaned else turn

    async def _is_orphaned(self, instance_id: str) -> bool:
        now = self._clock()
        return not await self._stores.saved.read(lambda tx: tx.instances.is_alive(instance_id, now))


def _to_end(events: Sequence[Numbered]) -> Sequence[Numbered]:
    """Return the events up to the first end: a reply that failed may have been begun again."""
    for number, numbered in enumerate(events, start=1):
        if isinstance(numbered.event, Ended):
            return events[:number]
    return events


def _as_stored(reply: Reply, events: Sequence[Numbered], after: int) -> Sequence[Numbered]:
    """Let a stored end stand for one that its owner could not store: the database may have heard him all the same."""
    if reply.end is None:  # nearly always
        return events
    *before, last = events
    in_doubt = isinstance(last.event, Ended) and last.event.end.reason == ReplyNotStored.slug
    if not in_doubt or not reply.first_seq < last.seq <= reply.last_seq:
        return events
    return [*before, *_rest(reply, before[-1].seq if before else after, told=False)]


def _rest(reply: Reply, after: int, *, told: bool) -> Sequence[Numbered]:
    """Return what a stored reply tells of itself to whoever saw the events up to `after`.

    While it runs elsewhere: all text so far, but only once. When it has ended: its text, if more came, and the end.
    """
    if reply.end is None:
        return [Numbered(reply.seq, Replace(reply.content, "resync"))] if reply.seq > after and not told else []
    behind = reply.seq - 1 > after
    text = [Numbered(reply.seq - 1, Replace(reply.content, "resync"))] if behind else []
    return [*text, Numbered(reply.seq, Ended(reply.end))]


def _so_far(reply: Reply, pieces: Sequence[str]) -> Reply:
    return replace(reply, content="".join(pieces))
