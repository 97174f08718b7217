"""Messages as they are sent, and replies as they are made again: once per key, stored before any vendor call."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from chatassist.domain.errors import (
    ChatAssistError,
    IdempotencyMismatch,
    Limited,
    MessageNotFound,
    NotLastTurn,
    ReplyRunning,
    SessionNotFound,
    StoreUnavailable,
)
from chatassist.domain.model import User, is_id
from chatassist.domain.ports.people import Taken
from chatassist.domain.replies.claiming import Claims
from chatassist.domain.replies.claims import Claim
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.replies.follow import Follower
from chatassist.domain.replies.gate import Gate
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import Draft, Status, Turn, check_key

log = logging.getLogger(__name__)

Fits = Callable[[Turn], bool]
"""Tell whether a turn is the one that this wish, repeated under its key, was accepted for."""

WAIT_SECONDS = 10.0
A_MOMENT = 0.2  # seconds

_REFUSALS = (Limited, Taken, NotLastTurn, ReplyRunning)
"""What a wish may be refused with because the same wish was accepted elsewhere a moment ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A turn that is stored. `replayed`: it was accepted by an earlier wish with the same key."""

    turn: Turn
    replayed: bool


class MessageService:
    """Accepts messages, and wishes for another reply."""

    def __init__(
        self,
        stores: Stores,
        engine: ReplyEngine,
        follower: Follower,
        *,
        gate: Gate,
        claims: Claims,
        patience: float = WAIT_SECONDS,
    ) -> None:
        """`patience`: seconds that a wish waits for another one with its key to be accepted or refused."""
        self._stores = stores
        self._engine = engine
        self._follower = follower
        self._gate = gate
        self._claims = claims
        self._patience = patience
        self._keys: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def send(self, user: User, draft: Draft) -> Sent:
        """Store a message and start its reply, or find the turn that an earlier send with the same key made.

        Returns once the turn is stored; the reply goes on by itself. A turn that failed begins its next attempt. A send
        that raises has changed nothing, but for StoreUnavailable: where the database went away at its COMMIT, only the
        same key tells what became of it.
        Raises what `Draft.checked` raises, ModelUnknown, SessionNotFound, IdempotencyMismatch, MessageNotFound (the
        key's turn was deleted), ReplyRunning (it failed, and another version of it is made), LlmBusy, TooManySends,
        ContentBlocked, ShuttingDown, StoreUnavailable.
        """
        draft = self._gate.checked(draft)

        async def fresh() -> Turn:
            with self._gate.seat(draft.model):
                await self._gate.admit(user, draft)
                return await self._start(user, draft)

        return await self._once(user, draft.key, draft.repeats, fresh)

    async def regenerate(self, user: User, reply_id: str, *, key: str | None = None, model: str | None = None) -> Sent:
        """Start another version of the reply to a session's last message; repeated with its key, find that version.

        Raises KeyInvalid, MessageNotFound, NotLastTurn, ReplyRunning, ModelUnknown, IdempotencyMismatch, LlmBusy,
        TooManySends, ShuttingDown, StoreUnavailable.
        """
        check_key(key)
        model = model or None
        if not is_id(reply_id):
            raise MessageNotFound
        turn = await self._follower.stored(reply_id, user.id)

        def fits(known: Turn) -> bool:
            same = known.message.id == turn.message.id and known.reply.version > 1
            return same and known.reply.requested_model == model

        async def fresh() -> Turn:
            with self._gate.seat(model):
                await self._gate.count_send(user)
                await self._take_place(user, key, saved=turn.saved)
                try:
                    return await self._accept(await self._claims.regenerate(user, turn, key=key, model=model))
                except SessionNotFound as exc:
                    raise MessageNotFound from exc

        return await self._once(user, key, fits, fresh)

    async def settle(self, turn: Turn, seconds: float) -> Turn:
        """Return the turn once its reply has ended, or as it stands after so many seconds."""
        if turn.reply.status is not Status.RUNNING:
            return turn
        return await self._follower.settle(turn, seconds)

    async def _once(self, user: User, key: str | None, fits: Fits, fresh: Callable[[], Awaitable[Turn]]) -> Sent:
        """Find what the key was accepted for, or let it be accepted; what failed is begun again."""
        if key is None:
            self._engine.check_open()
            return Sent(turn=await fresh(), replayed=False)
        # Wishes with one key wait for each other, so that only the first is counted; elsewhere the key's index rules.
        async with self._alone(user, key):
            known = await self._known(user, key, fits)
            if known and known.reply.status is not Status.FAILED:
                return await self._replayed(known)
            self._engine.check_open()
            try:
                turn = await self._again(user, known) if known else await fresh()
            except _REFUSALS as error:  # perhaps accepted elsewhere meanwhile, and what attaches is not refused
                winner = await self._winner(user, key, fits, error)
                if winner and (known is None or winner.reply.attempt > known.reply.attempt):
                    return await self._replayed(winner)
                if isinstance(error, Taken):
                    raise StoreUnavailable("a key is taken, but its turn cannot be read") from error
                raise
            return Sent(turn=turn, replayed=False)

    @asynccontextmanager
    async def _alone(self, user: User, key: str) -> AsyncIterator[None]:
        """Let nobody else in this process use the key meanwhile.

        Raises StoreUnavailable where others take too long: were all to wait for their turn at a database that hangs,
        the last would wait for the patience of all.
        """
        lock = self._keys.setdefault((user.id, key), asyncio.Lock())
        try:
            async with asyncio.timeout(self._patience):
                await lock.acquire()
        except TimeoutError as error:
            raise StoreUnavailable("an earlier wish with the same key still waits for the database") from error
        try:
            yield
        finally:
            lock.release()

    async def _known(self, user: User, key: str, fits: Fits) -> Turn | None:
        turn = await self._stores.find_by_key(key, user)
        if turn is None:
            return None
        if not fits(turn):
            raise IdempotencyMismatch
        if turn.reply.status is Status.RUNNING:  # it may be orphaned
            turn = await self._follower.stored(turn.reply.id, user.id)
        log.info("wish repeated", extra={"reply_id": turn.reply.id, "status": turn.reply.status})
        return turn

    async def _winner(self, user: User, key: str, fits: Fits, error: ChatAssistError) -> Turn | None:
        """Return what the key was accepted for meanwhile; who has taken it may take a moment more."""
        known = await self._known(user, key, fits)
        if known is None and isinstance(error, Taken):
            await asyncio.sleep(A_MOMENT)
            known = await self._known(user, key, fits)
        return known

    async def _replayed(self, turn: Turn) -> Sent:
        """Attach to a turn: what is said of it is to hold even where its own sender was not told yet."""
        return Sent(turn=await self._follower.secured(turn), replayed=True)

    async def _again(self, user: User, failed: Turn) -> Turn:
        with self._gate.seat(failed.reply.requested_model):
            await self._gate.admit(user, Draft(text=failed.message.content))
            return await self._accept(await self._claims.restart(user, failed))

    async def _start(self, user: User, draft: Draft) -> Turn:
        if user.preferences.save_history:
            await self._take_place(user, draft.key, saved=True)
            try:
                return await self._accept(self._claims.saved(user, draft))
            except SessionNotFound:  # unless it is an unsaved one
                pass
        claim = await self._claims.unsaved(user, draft)
        await self._take_place(user, draft.key, saved=False)
        return await self._accept(claim)

    async def _take_place(self, user: User, key: str | None, *, saved: bool) -> None:
        """Let no other process make a turn of this key in the other store. Raises Taken where one was quicker."""
        if key is not None and not await self._stores.places.take(user.id, key, saved=saved):
            raise Taken("the key is used for a turn in the other store")

    async def _accept(self, claim: Claim) -> Turn:
        turn = (await self._engine.start(claim)).turn
        log.info("turn accepted", extra={"reply_id": turn.reply.id, "user_id": turn.message.user_id})
        return turn
