"""What is kept: collections of domain values, reached only inside a unit of work.

Every method may raise StoreUnavailable. Reads inside `write` see what the unit wrote so far.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from chatassist.domain.model import Session
from chatassist.domain.ports.archive import Archive
from chatassist.domain.ports.erasing import Deletions, Erasures, Jobs
from chatassist.domain.ports.exports import Exports
from chatassist.domain.ports.people import Logins, Usages, Users
from chatassist.domain.ports.search import Search
from chatassist.domain.turns import End, Exchange, Feedback, Saved, Status, Turn
from chatassist.domain.usage import Meter

T = TypeVar("T")

MAX_POSITION = 2**31 - 1
"""Above every position that a turn can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a claim sees of its session: how many turns were accepted, and its model (a touch of this unit counts in
    both), and the youngest turns that speak, oldest first.
    """

    accepted: int
    exchanges: Sequence[Exchange]
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One of the replies to a message."""

    reply_id: str
    number: int
    status: Status


class Sessions(ABC):
    """Chat sessions. Every change raises the session's revision, and its user's. A deleted session is not found."""

    @abstractmethod
    async def add(self, session: Session) -> None:
        """Store a new session."""

    @abstractmethod
    async def get(self, session_id: str, user_id: str) -> Session:
        """Return a session of this user. Raises SessionNotFound."""

    @abstractmethod
    async def touch(
        self,
        session_id: str,
        user_id: str,
        at: datetime,
        *,
        turns: int = 1,
        said: str | None = None,
        model: str | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Let one more reply begin (`Session.began`), count it as one message, and hold the session's row until the
        unit ends.

        The first statement of a claim: it proves ownership and makes arrivals in a session wait for each other.
        Raises SessionNotFound.
        """

    @abstractmethod
    async def hold(self, session_id: str, user_id: str) -> None:
        """Hold the session's row until the unit ends, in which something about it changes. Raises SessionNotFound."""

    @abstractmethod
    async def entitle(self, session_id: str, title: str) -> bool:
        """Store a model's title; False, and no change, where the session has one that is not its question's."""

    @abstractmethod
    async def edit(
        self, session_id: str, user_id: str, *, title: str | None = None, pinned: bool | None = None
    ) -> None:
        """Store what the user wants of it (`Session.edited`). Raises SessionNotFound."""


class Turns(ABC):
    """Turns: a message with its reply. Of several versions a turn shows the newest that is `good`, else the newest."""

    @abstractmethod
    async def add(self, turn: Turn) -> None:
        """Store a new turn. Raises Taken when the user's key is in use."""

    @abstractmethod
    async def add_version(self, turn: Turn) -> None:
        """Store a new version of the reply to a message that is stored. Raises Taken when the key is in use."""

    @abstractmethod
    async def window(self, session_id: str, limit: int, *, before: int = MAX_POSITION) -> Window:
        """Return the session's count and model, and its `limit` youngest turns that speak in the version they show.

        `before`: only turns of lower position.
        """

    @abstractmethod
    async def latest(self, session_id: str, limit: int) -> Sequence[Turn]:
        """Return the `limit` youngest turns whatever their state, in the version they show, oldest first."""

    @abstractmethod
    async def versions(self, session_id: str, position: int) -> Sequence[Version]:
        """Return the versions of the reply at this position, oldest first."""

    @abstractmethod
    async def last_position(self, session_id: str) -> int:
        """Return the position of the session's youngest turn that was not deleted; 0 if there is none."""

    @abstractmethod
    async def find(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn a reply of this user belongs to."""

    @abstractmethod
    async def find_settled(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the same, but not before whoever is writing the turn at this moment has committed or given up.

        Only inside `write`.
        """

    @abstractmethod
    async def find_by_key(self, key: str, user_id: str) -> Turn | None:
        """Return the turn that was accepted under this user's key. Raises MessageNotFound when it was deleted."""

    @abstractmethod
    async def delete(self, session_id: str, position: int, at: datetime) -> int:
        """Erase a turn with all its versions, and return how many messages that were; keys stay until `purge`.

        The session is told: what ran does not run any more, its preview is that of its youngest turn, and where it lost
        its first turn, its title is that of the next, unless the user gave it one.
        """

    @abstractmethod
    async def purge(self, before: datetime) -> int:
        """Drop keys of turns that were deleted before this moment, at most 1,000 a call; return how many."""


class Replies(ABC):
    """The running side of turns. Every change is fenced: it says id and attempt and that the reply still runs."""

    @abstractmethod
    async def finish(self, reply_id: str, attempt: int, end: End, *, meter: Meter | None = None) -> bool:
        """Store the end of an attempt, and what its session shows of it; count on `meter` what the model took.

        False, and no change, when somebody else ended it.
        """

    @abstractmethod
    async def restart(self, reply_id: str, attempt: int, instance_id: str) -> bool:
        """Begin the next attempt of a reply that failed (`Reply.restarted`); False when it is not failed any more."""

    @abstractmethod
    async def save(self, texts: Sequence[Saved]) -> None:
        """Store how far attempts have come; of one that does not run any more nothing changes."""

    @abstractmethod
    async def running(self, instance_id: str) -> Collection[str]:
        """Return the ids of all replies that run under this instance."""

    @abstractmethod
    async def rate(self, reply_id: str, feedback: Feedback | None) -> None:
        """Store what the user thinks of a reply, or that he takes it back; of a deleted one nothing is stored."""

    @abstractmethod
    async def finish_orphans(self, now: datetime, end: End) -> int:
        """End every running reply whose instance is not alive at `now`, keeping its texts; return how many.

        Of `end`, texts and number do not count: the number is the last one of each attempt.
        """


class Instances(ABC):
    """Processes that produce replies, and until when each may be believed alive."""

    @abstractmethod
    async def renew(self, instance_id: str, until: datetime) -> None:
        """Store that this instance lives until then; adds it when new."""

    @abstractmethod
    async def is_alive(self, instance_id: str, now: datetime) -> bool:
        """Tell whether the instance's time is not over yet."""

    @abstractmethod
    async def remove(self, instance_id: str) -> None:
        """Forget an instance: what it left running is orphaned at once."""

    @abstractmethod
    async def purge(self, before: datetime) -> int:
        """Drop instances whose time was over before this moment; return how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One unit of work's view of everything kept. It is worthless once the unit has ended."""

    users: Users
    logins: Logins
    usages: Usages
    sessions: Sessions
    turns: Turns
    replies: Replies
    instances: Instances
    deletions: Deletions
    erasures: Erasures
    jobs: Jobs
    exports: Exports
    search: Search
    archive: Archive


class Store(ABC):
    """Where everything is kept."""

    @abstractmethod
    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` as one unit: whole, or not at all when it raises.

        `work` may run several times (deadlock, lost connection), so it touches nothing but its transaction; ids and
        times are made outside it. A cancelled caller changes nothing: the unit goes on to its end.
        Raises what `work` raises, StoreUnavailable, or CommitUnknown when the connection was lost during COMMIT.
        """

    @abstractmethod
    async def apply(self, change: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run one change that is whole by itself, and harmless when it runs again: it needs no unit around it.

        A lost connection repeats it; a cancelled caller changes nothing. Raises StoreUnavailable, after which the
        change may have happened: whoever needs to know applies it again.
        """

    @abstractmethod
    async def read(self, query: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `query` without a transaction and without a write lock. Raises what it raises, or StoreUnavailable.

        What it sees may not outlast a crash of the database before a later `write` that changed something has returned.
        """

    @abstractmethod
    async def check(self) -> None:
        """Make sure that the database answers and its schema is this version's. Raises StoreUnavailable."""
