"""Stops replies, wherever they are produced, and erases turns that nothing produces any more."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

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
AT_ONCE = 16
"""How many replies are stopped at once when many have to be."""


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

    async def stop_all(self, turns: Iterable[Turn]) -> None:
        """Return once the replies of all these turns have ended. Raises StoreUnavailable."""
        few = asyncio.Semaphore(AT_ONCE)

        async def stop(turn: Turn) -> None:
            with suppress(MessageNotFound):  # deleted meanwhile: it does not run either
                async with few:
                    await self.stop(turn)

        await asyncio.gather(*(stop(turn) for turn in turns))

    async def stop_all_of(self, user_id: str) -> None:
        """Return once nothing of a user's is produced here, nor, of what is saved, elsewhere.

        Of an unsaved reply nobody but its producer knows. Raises StoreUnavailable.
        """
        running = await self._stores.saved.read(lambda tx: tx.deletions.running(user_id))
        await asyncio.gather(self._engine.stop_all(user_id), self.stop_all(running))

    async def give_up(self, reply_ids: Iterable[str]) -> None:
        """Let whoever produces replies that are gone know that this is pointless."""
        for reply_id in reply_ids:
            if not self._engine.give_up(reply_id):
                await self._feed.request_stop(reply_id)

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
        running = (version for version in versions if version.status is Status.RUNNING)
        await self.give_up(version.reply_id for version in running)  # one may have begun since its turn was stopped
        return erased
