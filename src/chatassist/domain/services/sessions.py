"""Chat sessions as a user sees them."""

from collections.abc import Sequence

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Session, User, is_id
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.turns import Turn


class SessionService:
    """Shows sessions; messages open them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def latest(self, user: User, session_id: str, limit: int = 20) -> tuple[Session, Sequence[Turn]]:
        """Return a session with its youngest turns, oldest first. Raises SessionNotFound."""
        if not is_id(session_id):
            raise SessionNotFound

        async def look(tx: Transaction) -> tuple[Session, Sequence[Turn]]:
            return await tx.sessions.get(session_id, user.id), await tx.turns.latest(session_id, limit)

        return await self._store.read(look)
