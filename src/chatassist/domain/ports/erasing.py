"""What is deleted: for a while it can be undone, then it is erased for good, by whichever process leads that job.

Every method may raise StoreUnavailable.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chatassist.domain.turns import Turn

PORTION = 1000
"""How many rows of one kind a unit of work erases at most: none is to hold its locks for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Sessions that were deleted together; its id is the token that undoes it before `until`.

    `session_id` is None where all of a user's sessions were meant. `sessions` and `messages` count what was shown; once
    it was undone there is nothing left to count.
    """

    id: str
    user_id: str
    session_id: str | None
    until: datetime
    sessions: int = 0
    messages: int = 0


class Deletions(ABC):
    """Deletions that can be undone. A session that belongs to one is gone for everybody else."""

    @abstractmethod
    async def running(self, user_id: str, within: str | None = None) -> Sequence[Turn]:
        """Return the turns of this user whose reply runs; `within`: only those of that session or deletion."""

    @abstractmethod
    async def add(self, deletion: Deletion) -> Deletion | None:
        """Delete its session, or all its user's, and store it; return it with counts.

        The sessions' rows are held until the unit ends, so that no reply begins in them. None, and no change, where
        there is nothing of this user to delete.
        """

    @abstractmethod
    async def find(self, user_id: str, session_id: str | None, now: datetime) -> Deletion | None:
        """Return the deletion that a session went with, or with None the user's youngest one of all his sessions.

        None where there is none that can be undone at `now`, or it was undone.
        """

    @abstractmethod
    async def hold(self, deletion_id: str, user_id: str) -> Deletion | None:
        """Return a deletion of this user, whose row is held until the unit ends: undoing and erasing take turns."""

    @abstractmethod
    async def undo(self, deletion: Deletion) -> int:
        """Bring its sessions back as they were, and return how many. The deletion stays, with nothing in it."""


class Erasures(ABC):
    """What goes for good, in portions of which each is whole by itself: whoever stops in between goes on later."""

    @abstractmethod
    async def begin(self, user_id: str, at: datetime) -> bool:
        """Delete a user and his logins, and note that what else there is of him has to go.

        From the end of the unit on nothing of his is added any more. False, and no change, where he is gone already.
        """

    @abstractmethod
    async def unfinished(self, before: datetime) -> str | None:
        """Return the id of some user who was deleted before this moment, and of whom something may be left."""

    @abstractmethod
    async def erase_account(self, user_id: str) -> bool:
        """Erase a portion of what is left of a deleted user; False when nothing is, and then that is not noted more."""

    @abstractmethod
    async def overdue(self, now: datetime) -> str | None:
        """Return the id of some deletion whose time is over; from the end of the unit on nobody can undo it."""

    @abstractmethod
    async def erase_deletion(self, deletion_id: str) -> bool:
        """Erase a portion of the sessions of an overdue deletion; False when none is left, and it is gone itself."""


class Jobs(ABC):
    """Who does what only one process is to do."""

    @abstractmethod
    async def take(self, name: str, owner: str, now: datetime, until: datetime) -> bool:
        """Let this process do a job until then, and hold the job's row until the unit ends; its owner goes on so.

        False, and no change, while it is another's: his time is not over at `now`, or he was quicker.
        """
