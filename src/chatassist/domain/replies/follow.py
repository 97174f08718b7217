"""Follows a reply: to see it grow, or only its end. All read the same feed; what no feed holds, the row says."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from chatassist.domain.errors import MessageNotFound, ReplyInterrupted
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace, ReplyFeed
from chatassist.domain.ports.runtime import Clock
from chatassist.domain.turns import End, Status, Turn

LOOK_AGAIN = 0.5
"""Seconds between looks at the row of a reply that runs, but whose feed is not held here."""


class Follower:
    """Reads replies, from this process's feed where it is held, else from the database."""

    def __init__(self, store: Store, feed: ReplyFeed, clock: Clock, *, look_again: float = LOOK_AGAIN) -> None:
        self._store = store
        self._feed = feed
        self._clock = clock
        self._look_again = look_again

    async def events(self, reply_id: str, after: int = 0) -> AsyncIterator[Numbered]:
        """Yield what came after number `after`, then what comes, until the end or until nobody holds the feed."""
        while (found := await self._feed.read(reply_id, after, 10.0)) is not None:
            for numbered in found:
                yield numbered
                if isinstance(numbered.event, Ended):
                    return
                after = numbered.seq

    async def settle(self, turn: Turn, seconds: float) -> Turn:
        """Return the turn once its reply has ended, or as it stands after so many seconds.

        A reply without a feed here runs elsewhere, or was claimed this very moment: its row is looked at again.
        """
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while True:
            seen = await self._watched(turn, until) or await self.stored(turn.reply.id, turn.message.user_id)
            left = until - now()
            if seen.reply.status is not Status.RUNNING or left <= 0:
                return seen
            await asyncio.sleep(min(left, self._look_again))

    async def _watched(self, turn: Turn, until: float) -> Turn | None:
        """Return the turn as its feed shows it, at its end or at that time of the loop; None where none is held."""
        now = asyncio.get_running_loop().time
        after, pieces = 0, [""]
        while (found := await self._feed.read(turn.reply.id, after, max(until - now(), 0.0))) is not None:
            for numbered in found:
                after = numbered.seq
                match numbered.event:
                    case Delta(text):
                        pieces.append(text)
                    case Replace(content):
                        pieces = [content]
                    case Ended(end):
                        return _with(turn, "".join(pieces), end)
            if not found:
                return _with(turn, "".join(pieces))
        return None

    async def stored(self, reply_id: str, user_id: str) -> Turn:
        """Return the turn as the database holds it. Raises MessageNotFound.

        A running reply whose instance is no longer believed alive is interrupted, and the first who sees it says so.
        """
        now = self._clock()

        async def look(tx: Transaction) -> tuple[Turn | None, bool]:
            turn = await tx.turns.find(reply_id, user_id)
            if turn is None or turn.reply.status is not Status.RUNNING:
                return turn, False
            return turn, not await tx.instances.is_alive(turn.reply.instance_id, now)

        turn, orphaned = await self._store.read(look)
        if turn is None:
            raise MessageNotFound
        return await self._interrupted(turn) if orphaned else turn

    async def _interrupted(self, turn: Turn) -> Turn:
        end = End.failure(ReplyInterrupted(), self._clock())
        if await self._store.apply(lambda tx: tx.replies.finish(turn.reply.id, turn.reply.attempt, end)):
            return replace(turn, reply=turn.reply.ended(end))
        return await self.stored(turn.reply.id, turn.message.user_id)


def _with(turn: Turn, text: str, end: End | None = None) -> Turn:
    reply = replace(turn.reply, content=text)
    return replace(turn, reply=reply.ended(end) if end else reply)
