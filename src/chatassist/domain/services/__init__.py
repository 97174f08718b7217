"""What the doors are given: every use of the assistant, behind one value."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chatassist.domain.services.messages import MessageService
from chatassist.domain.services.sessions import SessionService
from chatassist.domain.services.users import UserService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services, and what a door needs to come and go politely."""

    users: UserService
    sessions: SessionService
    messages: MessageService
    check: Callable[[], Awaitable[None]]
    """Make sure that requests can be served. Raises StoreUnavailable, ShuttingDown."""
    drain: Callable[[float], Awaitable[None]]
    """Take no new replies, give the running ones so many seconds, then end the rest as interrupted."""
