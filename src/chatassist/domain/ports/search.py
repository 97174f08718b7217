"""Finding what was said. Reached inside a unit of work, as all that is kept."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A message that holds the keyword; `at`: when it was said in whole, as far as it is."""

    session_id: str
    title: str
    message_id: str
    snippet: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was found, newest first. `down_to`: the id of the oldest message looked at; None when none is older."""

    hits: Sequence[Hit]
    down_to: str | None


class Search(ABC):
    """What a user and his assistant said."""

    @abstractmethod
    async def look(self, user_id: str, keyword: str, *, before: str | None, messages: int, limit: int) -> Looked:
        """Look for the keyword in so many of the user's newest messages whose id is below `before`.

        Found are its exact code points, in questions and in replies that their turn shows (`Turns`), of sessions that
        are listed. Stops at `limit` hits: then nothing below the last of them is looked at, whatever `down_to` says.
        Raises StoreUnavailable.
        """
