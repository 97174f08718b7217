"""Who uses the service: people, their sign-ins, and what they used. Reached inside a unit of work, as all that is kept.

Every method may raise StoreUnavailable.
"""

from abc import ABC, abstractmethod
from datetime import datetime

from chatassist.domain.errors import ChatAssistError
from chatassist.domain.model import Login, User, UserChange
from chatassist.domain.usage import Meter, Used


class Taken(ChatAssistError):
    """A unique value (openid, or a user's key) is already in use: somebody else's unit of work won."""


class Users(ABC):
    """People."""

    @abstractmethod
    async def find(self, openid: str) -> User | None:
        """Return the user of an openid; case matters."""

    @abstractmethod
    async def find_by_id(self, user_id: str) -> User | None:
        """Return the user of an id."""

    @abstractmethod
    async def add(self, user: User) -> None:
        """Store a new user. Raises Taken when the openid exists."""

    @abstractmethod
    async def change(self, user_id: str, change: UserChange) -> None:
        """Store the fields that a change names, and nothing else: others may change the rest meanwhile.

        Raises the revision. Harmless when there is no such user.
        """

    @abstractmethod
    async def revise(self, user_id: str) -> bool:
        """Raise the revision, and hold the user's row until the unit ends; False when there is no such user."""

    @abstractmethod
    async def hold(self, user_id: str) -> bool:
        """Hold the user's row until the unit ends, so that he is not deleted; False when there is no such user."""

    @abstractmethod
    async def set_blocked(self, user_id: str, *, blocked: bool) -> None:
        """Block or unblock a user; harmless when he is already."""


class Logins(ABC):
    """Sign-ins that have not been ended."""

    @abstractmethod
    async def find(self, login_id: str) -> tuple[Login, User] | None:
        """Return the login with its user, in one round trip; None once it was ended."""

    @abstractmethod
    async def add(self, login: Login) -> None:
        """Store a new login."""

    @abstractmethod
    async def end(self, login_id: str) -> None:
        """End one login for good; harmless when it is ended already."""

    @abstractmethod
    async def end_all(self, user_id: str) -> None:
        """End every login of a user."""

    @abstractmethod
    async def purge(self, before: datetime) -> int:
        """Drop logins that expired before this moment, at most 1,000 a call; return how many."""


class Usages(ABC):
    """What people used, by day."""

    @abstractmethod
    async def count(self, meter: Meter, used: Used) -> None:
        """Add to what was used on that day."""

    @abstractmethod
    async def find(self, meter: Meter) -> Used:
        """Return what was used on that day."""
