"""Places of keys where no process shares its unsaved store with others: there is nothing to agree on."""

from chatassist.domain.ports.places import Places


class OwnPlaces(Places):
    """Those of this process, which uses a key for one wish at a time."""

    async def take(self, user_id: str, key: str, *, saved: bool) -> bool:
        """Agree."""
        return True
