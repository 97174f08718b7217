"""Sessions that their user deletes, and for a while may have back."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from chatassist.domain.errors import CommitUnknown, LoginEnded, SessionNotFound, UndoExpired
from chatassist.domain.model import User, is_id
from chatassist.domain.ports.erasing import Deletion
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.replies.gate import Gate
from chatassist.domain.replies.stop import Stopper
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import End, Turn

log = logging.getLogger(__name__)

CAN_BE_UNDONE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How much came back."""

    sessions: int = 0
    messages: int = 0


class DeletionService:
    """Deletes sessions, and restores what was deleted by mistake. All of it may raise TooManyReads."""

    def __init__(self, stores: Stores, stopper: Stopper, *, gate: Gate, runtime: Runtime) -> None:
        self._store = stores.saved
        self._stopper = stopper
        self._gate = gate
        self._clock = runtime.clock
        self._new_id = runtime.new_id

    async def delete(self, user: User, session_id: str) -> Deletion:
        """Delete a session, after stopping what runs in it; again, the same deletion. Raises SessionNotFound."""
        await self._gate.count_read(user)
        deletion = await self._deleted(user, session_id) if is_id(session_id) else None
        if deletion is None:
            raise SessionNotFound
        return deletion

    async def clear(self, user: User) -> Deletion | None:
        """Delete all sessions, those in no list too; where none is left, return the last such deletion.

        None where there is none that can be undone.
        """
        await self._gate.count_read(user)
        return await self._deleted(user, None)

    async def restore(self, user: User, token: str) -> Restored:
        """Undo a deletion; again, nothing happens. Raises UndoExpired."""
        await self._gate.count_read(user)
        if not is_id(token):
            raise UndoExpired
        now = self._clock()

        async def work(tx: Transaction) -> Restored:
            deletion = await tx.deletions.hold(token, user.id)
            if deletion is None or deletion.until <= now:
                raise UndoExpired
            if not deletion.sessions:
                return Restored()
            await _revise(tx, user)
            return Restored(sessions=await tx.deletions.undo(deletion), messages=deletion.messages)

        restored = await self._store.write(work)
        log.info("sessions restored", extra={"user_id": user.id, "count": restored.sessions})
        return restored

    async def _deleted(self, user: User, session_id: str | None) -> Deletion | None:
        await self._stopper.stop_all(await self._store.read(lambda tx: tx.deletions.running(user.id, session_id)))
        now = self._clock()
        wish = Deletion(id=self._new_id(), user_id=user.id, session_id=session_id, until=now + CAN_BE_UNDONE)

        async def work(tx: Transaction) -> tuple[Deletion | None, Sequence[Turn]]:
            deletion = await tx.deletions.add(wish)
            if deletion is None:
                return await _revised(tx, user, await tx.deletions.find(user.id, session_id, now)), ()
            await _revise(tx, user)
            late = await tx.deletions.running(user.id, deletion.id)  # begun since what ran was stopped
            for turn in late:
                await tx.replies.finish(turn.reply.id, turn.reply.attempt, End.stop(now))
            return deletion, late

        async def settled(tx: Transaction) -> tuple[Deletion | None, Sequence[Turn]]:
            known = await _revised(tx, user, await tx.deletions.hold(wish.id, user.id))
            return (known, ()) if known else await work(tx)

        try:
            deletion, late = await self._store.write(work)
        except CommitUnknown:
            deletion, late = await self._store.write(settled)
        await self._stopper.give_up(turn.reply.id for turn in late)
        log.info("sessions deleted", extra={"user_id": user.id, "count": deletion.sessions if deletion else 0})
        return deletion


async def _revised(tx: Transaction, user: User, known: Deletion | None) -> Deletion | None:
    """Return a deletion that was found: who is told of it is told by a unit that is on disk, as that may not be yet."""
    if known:
        await _revise(tx, user)
    return known


async def _revise(tx: Transaction, user: User) -> None:
    """Let the user's list show it. Raises LoginEnded once the account is deleted: then nothing may be added."""
    if not await tx.users.revise(user.id):
        raise LoginEnded
