"""Sending a message and seeing its reply: exactly once per key, stored before any vendor is called."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from weakref import WeakValueDictionary

from chatassist.domain.errors import IdempotencyMismatch, Limited, MessageNotFound, StoreUnavailable
from chatassist.domain.model import User, is_id
from chatassist.domain.ports.persistence import Store, Taken
from chatassist.domain.ports.replies import Numbered
from chatassist.domain.replies.claims import SendClaims
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.replies.follow import Follower
from chatassist.domain.replies.gate import Gate
from chatassist.domain.turns import Draft, Status, Turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A turn that is stored. `replayed`: it was accepted by an earlier send with the same key."""

    turn: Turn
    replayed: bool


class MessageService:
    """Accepts messages and shows their replies."""

    def __init__(
        self, store: Store, engine: ReplyEngine, follower: Follower, *, gate: Gate, claims: SendClaims
    ) -> None:
        self._store = store
        self._engine = engine
        self._follower = follower
        self._gate = gate
        self._claims = claims
        self._keys: WeakValueDictionary[tuple[str, str | None], asyncio.Lock] = WeakValueDictionary()

    async def send(self, user: User, draft: Draft) -> Sent:
        """Store a message and start its reply, or find the turn that an earlier send with the same key made.

        Returns once the turn is stored; the reply goes on by itself. A send that raises has changed nothing, but for
        StoreUnavailable: where the database went away at its COMMIT, only the same key tells what became of it.
        Raises what `Draft.checked` raises, ModelUnknown, SessionNotFound, IdempotencyMismatch, TooManySends,
        ContentBlocked, ShuttingDown, StoreUnavailable.
        """
        draft = self._gate.checked(draft)
        if draft.key is None:
            return await self._accept(user, draft)
        # Sends with one key wait for each other, so that only the first is counted; elsewhere the key's index rules.
        async with self._keys.setdefault((user.id, draft.key), asyncio.Lock()):
            return await self._known(user, draft) or await self._accept(user, draft)

    async def settle(self, turn: Turn, seconds: float) -> Turn:
        """Return the turn once its reply has ended, or as it stands after so many seconds."""
        if turn.reply.status is not Status.RUNNING:
            return turn
        return await self._follower.settle(turn, seconds)

    async def get(self, user: User, reply_id: str) -> Turn:
        """Return the turn of a reply, with all text so far. Raises MessageNotFound, TooManyReads."""
        await self._gate.count_read(user)
        if not is_id(reply_id):
            raise MessageNotFound
        return await self.settle(await self._follower.stored(reply_id, user.id), 0.0)

    def events(self, turn: Turn) -> AsyncIterator[Numbered]:
        """Yield the reply's events as they come, from its first."""
        return self._follower.events(turn.reply.id)

    async def _accept(self, user: User, draft: Draft) -> Sent:
        self._engine.check_open()
        try:
            await self._gate.admit(user, draft)
        except Limited:
            if known := await self._known(user, draft):  # accepted meanwhile, and what attaches is not counted
                return known
            raise
        try:
            accepted = await self._engine.start(self._claims.of(user, draft))
        except Taken:  # another send with the key won the race
            return await self._winner(user, draft)
        log.info("turn accepted", extra={"reply_id": accepted.turn.reply.id, "user_id": user.id})
        return Sent(turn=accepted.turn, replayed=False)

    async def _known(self, user: User, draft: Draft) -> Sent | None:
        key = draft.key
        if key is None:
            return None
        turn = await self._store.read(lambda tx: tx.turns.find_by_key(key, user.id))
        if turn is None:
            return None
        if not draft.repeats(turn):
            raise IdempotencyMismatch
        if turn.reply.status is Status.RUNNING:  # it may be orphaned
            turn = await self._follower.stored(turn.reply.id, user.id)
        log.info("send repeated", extra={"reply_id": turn.reply.id, "status": turn.reply.status})
        return Sent(turn=turn, replayed=True)

    async def _winner(self, user: User, draft: Draft) -> Sent:
        if known := await self._known(user, draft):
            return known
        raise StoreUnavailable("a key is taken, but its turn cannot be read")
