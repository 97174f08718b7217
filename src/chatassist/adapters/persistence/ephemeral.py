"""A store that forgets: what a user does not want kept lives here, in this process, for a while after its last turn."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.runtime import Clock

T = TypeVar("T")

IDLE = timedelta(minutes=30)
SESSIONS = 20_000


class EphemeralStore(MemoryStore):
    """A memory store whose sessions are gone, with all in them, `idle` after their last turn was accepted.

    More than `sessions` at once, and the one that was idle for longest goes before its time.
    """

    def __init__(self, clock: Clock, *, idle: timedelta = IDLE, sessions: int = SESSIONS) -> None:
        super().__init__()
        self._clock = clock
        self._idle = idle
        self._most = sessions
        self._touched: OrderedDict[str, datetime] = OrderedDict()  # session id → its last turn, longest ago first

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` on what is not forgotten yet."""
        self.forget()
        return await super().write(work)

    async def read(self, query: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `query` on what is not forgotten yet."""
        self.forget()
        return await super().read(query)

    def forget(self) -> None:
        """Drop the sessions whose time is over, but nothing from under a unit of work."""
        if self._turn.locked():
            return
        over = self._clock() - self._idle
        while self._touched:
            session_id, at = next(iter(self._touched.items()))
            if at > over and len(self._touched) <= self._most:
                return
            self._drop(session_id)

    def _merged(self, changes: Tables) -> None:
        for session_id in changes.changed_sessions:
            at = self._tables.sessions[session_id].updated_at
            if self._touched.get(session_id) != at:  # else it was only held, and its time runs on
                self._touched[session_id] = at
                self._touched.move_to_end(session_id)

    def _drop(self, session_id: str) -> None:
        tables = self._tables
        del self._touched[session_id]
        tables.sessions.pop(session_id, None)
        for reply_id in tables.order.pop(session_id, ()):
            turn = tables.turns.pop(reply_id)
            if turn.reply.key is not None:
                tables.keys.pop((turn.message.user_id, turn.reply.key), None)
        for key in [key for key, at in tables.spent.items() if at <= self._clock() - self._idle]:
            del tables.spent[key]
