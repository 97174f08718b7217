"""Whether content may be sent to a model or shown to a user."""

from abc import ABC, abstractmethod


class Moderator(ABC):
    """Judges texts."""

    @abstractmethod
    async def allows(self, text: str, openid: str) -> bool:
        """Tell whether the text may pass; `openid` is whose text it is."""
