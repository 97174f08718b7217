"""What the memory store keeps, and the copy of it that a unit of work writes to."""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Generic, TypeVar

from chatassist.domain.model import Login, Session, User
from chatassist.domain.ports.erasing import Deletion
from chatassist.domain.turns import Turn
from chatassist.domain.usage import Meter, Used

K = TypeVar("K")
V = TypeVar("V")


class Overlay(MutableMapping[K, V], Generic[K, V]):
    """A mapping over another that stays as it is until `merge`: what a unit costs does not grow with what is kept."""

    def __init__(self, below: MutableMapping[K, V]) -> None:
        self._below = below
        self._new: dict[K, V] = {}
        self._gone: set[K] = set()

    def __getitem__(self, key: K) -> V:
        if key in self._new:
            return self._new[key]
        if key in self._gone:
            raise KeyError(key)
        return self._below[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._new[key] = value
        self._gone.discard(key)

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._new.pop(key, None)
        if key in self._below:
            self._gone.add(key)

    def __iter__(self) -> Iterator[K]:
        yield from [key for key in self._below if key not in self._gone and key not in self._new]
        yield from list(self._new)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def changed(self) -> Sequence[K]:
        """The keys that have a new value."""
        return tuple(self._new)

    def merge(self) -> None:
        """Change the mapping below as this one was changed."""
        for key in self._gone:
            self._below.pop(key, None)
        self._below.update(self._new)


def _table() -> MutableMapping[K, V]:
    return {}


@dataclass(kw_only=True)
class Tables:
    """Everything kept, by id, and what the unique indexes of SQL are. All values are immutable."""

    users: MutableMapping[str, User] = field(default_factory=_table)
    openids: MutableMapping[str, str] = field(default_factory=_table)  # openid → user id
    logins: MutableMapping[str, Login] = field(default_factory=_table)
    sessions: MutableMapping[str, Session] = field(default_factory=_table)
    turns: MutableMapping[str, Turn] = field(default_factory=_table)  # by the reply's id
    order: MutableMapping[str, tuple[str, ...]] = field(default_factory=_table)
    """Session id → reply ids by position and version."""
    keys: MutableMapping[tuple[str, str], str] = field(default_factory=_table)  # user id, key → reply id
    spent: MutableMapping[tuple[str, str], datetime] = field(default_factory=_table)
    """User id, key → when its turn was deleted."""
    instances: MutableMapping[str, datetime] = field(default_factory=_table)

    usages: MutableMapping[Meter, Used] = field(default_factory=_table)
    deletions: MutableMapping[str, Deletion] = field(default_factory=_table)
    erasures: MutableMapping[str, datetime] = field(default_factory=_table)
    """User id → when he was deleted."""
    jobs: MutableMapping[str, tuple[str, datetime]] = field(default_factory=_table)
    """Name → owner, and until when."""

    def change_session(self, session: Session) -> None:
        """Keep a session as it is now; that shows in its user's list."""
        self.sessions[session.id] = session
        self.revise_user(session.user_id)

    def revise_user(self, user_id: str) -> bool:
        """Raise a user's revision; False where none is known."""
        user = self.users.get(user_id)
        if user is not None:
            self.users[user_id] = replace(user, revision=user.revision + 1)
        return user is not None

    def count(self, meter: Meter, used: Used) -> None:
        """Add to a day."""
        self.usages[meter] = self.usages.get(meter, Used()) + used

    def overlaid(self) -> "Tables":
        """Return tables for a unit of work, over these."""
        return Tables(**{table.name: Overlay(getattr(self, table.name)) for table in fields(self)})

    @property
    def changed_sessions(self) -> Sequence[str]:
        """Of `overlaid` tables: the sessions that were added or changed."""
        assert isinstance(self.sessions, Overlay)  # noqa: S101 - as `overlaid` made them
        return self.sessions.changed

    def merge(self) -> None:
        """Carry what `overlaid` tables were changed to into those below."""
        for table in fields(self):
            overlay = getattr(self, table.name)
            assert isinstance(overlay, Overlay)  # noqa: S101 - as `overlaid` made them
            overlay.merge()
