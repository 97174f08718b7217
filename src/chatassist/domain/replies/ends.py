"""How a reply ends: stored once, by one fenced update, and then told to whoever follows."""

import logging
from dataclasses import replace

from chatassist.domain.errors import Internal, MessageNotFound, ReplyInterrupted, ReplyNotStored, StoreUnavailable
from chatassist.domain.ports.replies import Ended, Replace, ReplyFeed
from chatassist.domain.replies.lease import Lease
from chatassist.domain.replies.production import Production
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import End, Turn
from chatassist.domain.usage import Used

log = logging.getLogger(__name__)


class Ends:
    """Stores ends, of replies that this process produces and of others that somebody has to end for their owner."""

    def __init__(self, stores: Stores, feed: ReplyFeed, lease: Lease) -> None:
        self._stores = stores
        self._feed = feed
        self._lease = lease
        self._clock = lease.clock

    async def settle(self, production: Production, end: End) -> End:
        """Store the end of what this process produced, or learn how somebody else ended it; tell and return it."""
        told = await self._stored(production, replace(end, seq=production.seq + 1))
        if told.seq == production.seq + 1 and told.content == production.text:
            await self._feed.append(production.turn.reply.id, Ended(told))
        else:
            await self._tell_anew(production.turn, told)
        about = {"reply_id": production.turn.reply.id, "status": told.status, "reason": told.reason}
        log.info("reply ended", extra=about)
        return told

    async def from_outside(self, turn: Turn, end: End) -> Turn:
        """End a reply in its owner's place, with the text that was last saved; return it as it was really ended.

        Raises StoreUnavailable, and MessageNotFound when it was deleted meanwhile.
        """
        store, reply = self._stores.of(turn), turn.reply
        won = await store.apply(lambda tx: tx.replies.finish(reply.id, reply.attempt, end))
        now = await store.read(lambda tx: tx.turns.find(reply.id, turn.message.user_id))
        if now is None:
            raise MessageNotFound
        if not won and turn.saved:
            await self._lease.secure()
        if won and now.reply.end is not None:
            await self._tell_anew(now, now.reply.end)
            log.info("reply ended for its owner", extra={"reply_id": reply.id, "status": end.status})
        return now

    async def _tell_anew(self, turn: Turn, end: End) -> None:
        """Tell the whole text and the end, by the numbers that were stored: they may be far above those seen so far."""
        seq = end.seq or turn.reply.last_seq
        await self._feed.open(turn.reply.id, seq - 2)
        await self._feed.append(turn.reply.id, Replace(end.content or "", "resync"), Ended(end))

    async def _stored(self, production: Production, end: End) -> End:
        """Store the end; where a defect prevents that, store and tell the defect in its place."""
        # The text may be what cannot be stored; its removal is an event of its own.
        failed = replace(End.failure(Internal(), self._clock()), content="", seq=production.seq + 2)
        for attempted in (end, failed):
            try:
                return await self._store(production, attempted)
            except Exception:  # the runner of reply tasks: no follower is left without an end
                log.exception("storing a reply failed", extra={"reply_id": production.turn.reply.id})
        return failed

    async def _store(self, production: Production, end: End) -> End:
        """Store the end once; return what the reply ended as."""
        turn, reply = production.turn, production.turn.reply
        store = self._stores.of(turn)
        meter = production.meter if turn.saved else None

        async def attempt() -> End:
            if await store.apply(lambda tx: tx.replies.finish(reply.id, reply.attempt, end, meter=meter)):
                await self._count_elsewhere(production, end)
                return end
            return await self._other_end(turn, end)

        try:
            return await self._lease.patiently(attempt)
        except StoreUnavailable:
            failure = End.failure(ReplyNotStored(), self._clock())
            return replace(failure, content=end.content, thinking=end.thinking, seq=end.seq)

    async def _count_elsewhere(self, production: Production, end: End) -> None:
        """Count what the reply of an unsaved turn took: its own store counts nothing."""
        if production.turn.saved or end.usage is None:
            return
        used = Used(input_tokens=end.usage.input_tokens, output_tokens=end.usage.output_tokens)
        try:
            await self._stores.saved.apply(lambda tx: tx.usages.count(production.meter, used))
        except StoreUnavailable:
            log.warning("tokens were not counted", extra={"reply_id": production.turn.reply.id})

    async def _other_end(self, turn: Turn, end: End) -> End:
        """Return how somebody else (or an earlier try whose COMMIT we did not hear of) ended the attempt."""
        reply = turn.reply
        stored = await self._stores.of(turn).read(lambda tx: tx.turns.find(reply.id, turn.message.user_id))
        if stored is None:  # deleted, which stops it first: to be sent again is not what anybody wants
            return replace(End.stop(self._clock()), content=end.content, thinking=end.thinking, seq=reply.last_seq)
        if turn.saved:
            await self._lease.secure()
        if stored.reply.attempt == reply.attempt and stored.reply.end is not None:
            return stored.reply.end
        # Begun again elsewhere: for this attempt it is over.
        return replace(End.failure(ReplyInterrupted(), self._clock()), content=end.content, seq=reply.last_seq)
