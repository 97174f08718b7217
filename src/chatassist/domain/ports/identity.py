"""Who somebody is: a code from the client becomes an openid, and a login becomes a token."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta

from chatassist.domain.model import Login


class IdentityProvider(ABC):
    """Vouches for people."""

    @abstractmethod
    async def identify(self, code: str) -> str:
        """Return the openid that a one-time login code stands for.

        Never repeated by itself: after a timeout the code may be spent.
        Raises LoginCodeInvalid, WeChatUserBlocked, WeChatRateLimited, IdentityUnavailable, IdentityMisconfigured.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says: whose it is, and which login it belongs to."""

    user_id: str
    login_id: str


class Tokens(ABC):
    """Makes and reads bearer tokens. Whether the login still stands is the store's to say."""

    @property
    @abstractmethod
    def lifetime(self) -> timedelta:
        """How long a login may live."""

    @abstractmethod
    def issue(self, login: Login) -> str:
        """Return a token that expires with the login."""

    @abstractmethod
    def read(self, token: str) -> Claims:
        """Return what the token says. Raises TokenInvalid, TokenExpired."""
