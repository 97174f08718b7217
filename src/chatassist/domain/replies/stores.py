"""Where turns live: in the database, or, where their user wants nothing kept, in a store that forgets."""

from dataclasses import dataclass

from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.places import Places
from chatassist.domain.turns import Turn


@dataclass(frozen=True, slots=True)
class Stores:
    """Both. A turn stays for life where it was claimed; leases and users are in `saved` alone."""

    saved: Store
    unsaved: Store
    places: Places

    def of(self, turn: Turn) -> Store:
        """Return the store that a turn lives in."""
        return self.saved if turn.saved else self.unsaved

    async def find(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply of this user, wherever it lives."""
        return await self.saved.read(lambda tx: tx.turns.find(reply_id, user_id)) or await self.unsaved.read(
            lambda tx: tx.turns.find(reply_id, user_id)
        )

    async def find_by_key(self, key: str, user: User) -> Turn | None:
        """Return the turn accepted under this user's key, wherever it lives. Raises MessageNotFound when deleted.

        While the unsaved store is away, whoever has everything saved is taken not to have used the key there: his
        sends are not to depend on it.
        """
        found = await self.saved.read(lambda tx: tx.turns.find_by_key(key, user.id))
        if found is not None:
            return found
        try:
            return await self.unsaved.read(lambda tx: tx.turns.find_by_key(key, user.id))
        except StoreUnavailable:
            if user.preferences.save_history:
                return None
            raise
