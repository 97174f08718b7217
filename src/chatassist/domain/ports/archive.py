"""What a user looks through: his sessions, and what was said in one, page by page. Nothing here changes anything.

What a page costs does not grow with what lies before or behind it. Every method may raise StoreUnavailable.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chatassist.domain.history import Place, Stretch
from chatassist.domain.model import Session
from chatassist.domain.turns import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a list of sessions: right behind the one that has these values."""

    pinned: bool
    at: datetime
    session_id: str

    @classmethod
    def behind(cls, session: Session) -> "Mark":
        """Return the place behind a session that is listed."""
        return cls(pinned=session.pinned, at=session.updated_at, session_id=session.id)


FIRST_OF_ALL = Mark(pinned=True, at=datetime.max.replace(tzinfo=UTC), session_id="~")
FIRST_NOT_PINNED = Mark(pinned=False, at=FIRST_OF_ALL.at, session_id=FIRST_OF_ALL.session_id)


class Archive(ABC):
    """What is kept of a user's sessions. Whose they are is checked by `sessions` alone: find the session first."""

    @abstractmethod
    async def sessions(self, user_id: str, mark: Mark, limit: int, *, keyword: str = "") -> Sequence[Session]:
        """Return the first sessions behind the mark: of those that are listed, pinned ones, then by `listed_at`.

        `keyword`: only those whose title has it in it, exactly as it is. The youngest come first.
        """

    @abstractmethod
    async def place(self, session_id: str, message_id: str) -> Place | None:
        """Return where a question, or any version of a reply, stands in this session; None when it does not."""

    @abstractmethod
    async def turns(self, session_id: str, stretch: Stretch) -> Sequence[Turn]:
        """Return turns in the version they show, oldest first."""

    @abstractmethod
    async def versions(self, session_id: str, first: int, last: int) -> Mapping[int, Sequence[str]]:
        """Return the ids of all versions of replies from one position to another, oldest first."""
