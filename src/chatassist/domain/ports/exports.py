"""Everything that is kept about a user, page by page, for whoever wants to take it with him.

Every method may raise StoreUnavailable. A page with less than it may have is the last.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from chatassist.domain.model import Login, Session
from chatassist.domain.turns import Message, Reply
from chatassist.domain.usage import Used


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What was used on a day."""

    day: date
    used: Used


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message of a session, or one version of the reply to it; `shown`: whether its turn shows it (see `Turns`)."""

    position: int
    said: Message | Reply
    shown: bool = True

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in its session: by turn, then the message, then the versions."""
        return self.position, self.said.version if isinstance(self.said, Reply) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Entries of a session, in their order, and whether there are more behind them."""

    entries: Sequence[Entry]
    more: bool


START = (0, 0)
"""Before the place of every entry: positions count from 1."""


class Exports(ABC):
    """Reads in orders that do not change while one reads: what was there at the start is given once."""

    @abstractmethod
    async def days(self, subject: str, after: date, limit: int) -> Sequence[Day]:
        """Return what a meter's subject used on the days after this one, oldest first."""

    @abstractmethod
    async def logins(self, user_id: str, after: str, limit: int) -> Sequence[Login]:
        """Return logins of a user whose ids are above this one, by id."""

    @abstractmethod
    async def sessions(self, user_id: str, after: str, limit: int) -> Sequence[Session]:
        """Return sessions of a user whose ids are above this one, by id; a deleted one is not among them."""

    @abstractmethod
    async def entries(self, session: Session, after: tuple[int, int], room: int) -> Page:
        """Return entries after a place: as many as have texts of `room` bytes in all, but one in any case."""
