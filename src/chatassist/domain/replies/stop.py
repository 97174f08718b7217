"""Stops replies, wherever they are produced, and erases turns that nothing produces any more."""

from collections.abc import Sequence

from chatassist.domain.errors import MessageNotFound, SessionNotFound
from chatassist.domain.ports.persistence import Transaction, Version
from chatassist.domain.ports.replies import ReplyFeed
from chatassist.domain.replies.ends import Ends
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.replies.follow import Follower
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import End, Status, Turn

OWNER_SECONDS = 1.0
"""How long a process that produces a reply gets to end it itself, with all of its text, before it is ended for it."""


class Stopper:
    """Stops by asking the process that produces a reply, and by the fence where it does not answer."""

    def __init__(self, stores: Stores, engine: ReplyEngine, follower: Follower, *, feed: ReplyFeed, ends: Ends) -> None:
        self._stores = stores
        self._engine = engine
        self._follower = follower
        self._feed = feed
        self._ends = ends

    async def stop(self, turn: Turn) -> Turn:
        """Return the turn once its reply has ended, however that was. Raises MessageNotFound, StoreUnavailable."""
        reply_id, user_id = turn.reply.id, turn.message.user_id
        if turn.reply.status is not Status.RUNNING:
            return turn
        if await self._engine.stop(turn.reply):
            return await self._follower.stored(reply_id, user_id)
        await self._feed.request_stop(reply_id)
        seen = await self._follower.settle(turn, OWNER_SECONDS)
        if seen.reply.status is not Status.RUNNING:
            return seen
        return await self._ends.from_outside(turn, End.stop(self._engine.clock()))

    async def erase(self, turn: Turn) -> int:
        """Erase a turn with all its versions; return how many messages that were. Raises MessageNotFound."""
        session_id, position, user_id = turn.message.session_id, turn.message.position, turn.message.user_id
        now = self._engine.clock()

        async def work(tx: Transaction) -> tuple[int, Sequence[Version]]:
            await tx.sessions.hold(session_id, user_id)  # no version is added meanwhile
            versions = await tx.turns.versions(session_id, position)
            return await tx.turns.delete(session_id, position, now), versions

        try:
            erased, versions = await self._stores.of(turn).write(work)
        except SessionNotFound as exc:
            raise MessageNotFound from exc
        if not erased:
            raise MessageNotFound
        for version in versions:  # one may have begun since its turn was stopped
            if version.status is Status.RUNNING and not self._engine.give_up(version.reply_id):
                await self._feed.request_stop(version.reply_id)
        return erased
