"""In which of two stores the turn of a key is made, as processes agree on it before any of them makes it."""

from abc import ABC, abstractmethod


class Places(ABC):
    """Keys that are in use just now. Each store keeps a key once, but neither knows the other's."""

    @abstractmethod
    async def take(self, user_id: str, key: str, *, saved: bool) -> bool:
        """Let turns of this key be made in one of the stores alone, for a minute from now.

        False where another process was given the other one within the last minute; this process may change its mind.
        Never raises: a process that cannot reach the others goes on by itself, and makes saved turns only.
        """
