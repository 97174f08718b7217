"""Replies as their user handles them: seen, followed, stopped, rated, deleted."""

from collections.abc import AsyncGenerator, Sequence

from chatassist.domain.errors import BadSeq, ContentInvalid, MessageNotFound, SessionNotFound
from chatassist.domain.history import Shown
from chatassist.domain.model import User, is_clean, is_id
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.replies import Numbered
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.replies.follow import Follower
from chatassist.domain.replies.gate import Gate
from chatassist.domain.replies.stop import Stopper
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import Feedback, Status, Turn

Events = AsyncGenerator[Sequence[Numbered], None]


class ReplyService:
    """Shows replies, and does what a user may do with them. All of it may raise MessageNotFound, TooManyReads."""

    def __init__(
        self, stores: Stores, engine: ReplyEngine, follower: Follower, *, gate: Gate, stopper: Stopper
    ) -> None:
        self._stores = stores
        self._engine = engine
        self._follower = follower
        self._gate = gate
        self._stopper = stopper

    async def get(self, user: User, reply_id: str, *, wait: float = 0.0) -> Shown:
        """Return a reply with all text so far; wait so many seconds for its end."""
        turn = await self._find(user, reply_id)
        return await self._shown(await self._settled(turn, wait))

    async def follow(self, user: User, reply_id: str, after: int) -> tuple[Turn, Events]:
        """Return the turn of a reply, and its events after the number `after` as `Follower.follow` yields them.

        What an earlier attempt told is not told again. Raises BadSeq, and ShuttingDown where it runs elsewhere.
        """
        turn = await self._find(user, reply_id)
        last = self._engine.last_number(turn.reply) if _runs(turn) else turn.reply.seq
        if not 0 <= after <= last or (_runs(turn) and not await self._follower.may_have_told(turn, after)):
            raise BadSeq
        return turn, self._follower.follow(turn, max(after, turn.reply.first_seq))

    def events(self, turn: Turn) -> Events:
        """Return the events of a turn that was just accepted or found, from the first of its attempt."""
        return self._follower.follow(turn, turn.reply.first_seq)

    async def stop(self, user: User, reply_id: str) -> Shown:
        """Stop a reply, keeping its text; return it once its end is stored, however it ended."""
        turn = await self._find(user, reply_id)
        return await self._shown(await (self._stopper.stop(turn) if _runs(turn) else self._follower.secured(turn)))

    async def rate(self, user: User, reply_id: str, feedback: Feedback | None) -> Shown:
        """Keep what the user thinks of a reply; None takes it back. Raises ContentInvalid."""
        if feedback and feedback.comment and not is_clean(feedback.comment):
            raise ContentInvalid
        turn = await self._find(user, reply_id)

        async def work(tx: Transaction) -> None:
            await tx.sessions.hold(turn.message.session_id, user.id)
            await tx.replies.rate(reply_id, feedback)

        try:
            await self._stores.of(turn).write(work)
        except SessionNotFound as exc:
            raise MessageNotFound from exc
        rated = await self._follower.stored(reply_id, user.id)  # a feed knows nothing of ratings
        return await self._shown(await self._settled(rated, 0.0))

    async def delete(self, user: User, reply_id: str) -> int:
        """Erase the turn of a reply for good, after stopping it; return how many messages that were."""
        turn = await self._find(user, reply_id)
        for version in (await self._shown(turn)).versions:
            await self._stopper.stop(await self._follower.stored(version, user.id))
        return await self._stopper.erase(turn)

    def close(self) -> None:
        """End what still follows replies: those that other processes produce."""
        self._follower.close()

    async def _find(self, user: User, reply_id: str) -> Turn:
        await self._gate.count_read(user)
        if not is_id(reply_id):
            raise MessageNotFound
        return await self._follower.stored(reply_id, user.id)

    async def _settled(self, turn: Turn, seconds: float) -> Turn:
        return await (self._follower.settle(turn, seconds) if _runs(turn) else self._follower.secured(turn))

    async def _shown(self, turn: Turn) -> Shown:
        session_id, position = turn.message.session_id, turn.message.position
        versions = await self._stores.of(turn).read(lambda tx: tx.turns.versions(session_id, position))
        return Shown(turn=turn, versions=[version.reply_id for version in versions])


def _runs(turn: Turn) -> bool:
    return turn.reply.status is Status.RUNNING
