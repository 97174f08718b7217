"""The store of one process without a database: dictionaries, with the same promises as the SQL one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Login, Session, User
from chatassist.domain.ports.persistence import (
    Instances,
    Logins,
    Replies,
    Sessions,
    Store,
    Taken,
    Transaction,
    Turns,
    Users,
    Window,
)
from chatassist.domain.turns import End, Status, Turn

T = TypeVar("T")
Work = Callable[[Transaction], Awaitable[T]]

_PURGED_AT_ONCE = 1000


@dataclass(kw_only=True)
class Tables:
    """Everything kept, by id, and what the unique indexes of SQL are. All values are immutable: a copy is shallow."""

    users: dict[str, User] = field(default_factory=dict)
    openids: dict[str, str] = field(default_factory=dict)  # openid → user id
    logins: dict[str, Login] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)  # by the reply's id
    order: dict[str, tuple[str, ...]] = field(default_factory=dict)  # session id → reply ids by position
    keys: dict[tuple[str, str], str] = field(default_factory=dict)  # user id, key → reply id
    instances: dict[str, datetime] = field(default_factory=dict)

    def copy(self) -> "Tables":
        """Return tables of their own for a unit of work."""
        return Tables(**{table.name: dict(getattr(self, table.name)) for table in fields(self)})


class MemoryStore(Store):
    """One writer at a time, on a copy that replaces the original when the unit succeeds."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._turn = asyncio.Lock()
        self._units: set[asyncio.Task[Any]] = set()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a task of its own, so that the caller's cancellation cannot cut it in half."""
        unit = asyncio.create_task(self._commit(work))
        self._units.add(unit)
        unit.add_done_callback(self._units.discard)
        return await asyncio.shield(unit)

    async def apply(self, change: Work[T]) -> T:
        """Run `change` as a unit: here that costs nothing."""
        return await self.write(change)

    async def _commit(self, work: Work[T]) -> T:
        async with self._turn:
            tables = self._tables.copy()
            result = await work(_transaction(tables))
            self._tables = tables
            return result

    async def read(self, query: Work[T]) -> T:
        """Run `query` on what was last committed."""
        return await query(_transaction(self._tables))

    async def check(self) -> None:
        """Find nothing wrong, ever."""

    async def aclose(self) -> None:
        """Let the running units end."""
        await asyncio.gather(*self._units, return_exceptions=True)


class MemoryUsers(Users):
    """`Users` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def find(self, openid: str) -> User | None:
        """Return the user of an openid."""
        return self._tables.users.get(self._tables.openids.get(openid, ""))

    async def find_by_id(self, user_id: str) -> User | None:
        """Return the user of an id."""
        return self._tables.users.get(user_id)

    async def add(self, user: User) -> None:
        """Store a new user."""
        if user.openid in self._tables.openids:
            raise Taken("the openid has a user")
        self._tables.openids[user.openid] = user.id
        self._tables.users[user.id] = user

    async def save_profile(self, user: User) -> None:
        """Store nickname and avatar."""
        if known := self._tables.users.get(user.id):
            self._tables.users[user.id] = replace(known, nickname=user.nickname, avatar=user.avatar)

    async def set_blocked(self, user_id: str, *, blocked: bool) -> None:
        """Store whether the user is blocked."""
        if known := self._tables.users.get(user_id):
            self._tables.users[user_id] = replace(known, blocked=blocked)


class MemoryLogins(Logins):
    """`Logins` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def find(self, login_id: str) -> tuple[Login, User] | None:
        """Return the login with its user."""
        login = self._tables.logins.get(login_id)
        user = login and self._tables.users.get(login.user_id)
        return (login, user) if login and user else None

    async def add(self, login: Login) -> None:
        """Store a new login."""
        self._tables.logins[login.id] = login

    async def end(self, login_id: str) -> None:
        """End one login."""
        self._tables.logins.pop(login_id, None)

    async def end_all(self, user_id: str) -> None:
        """End every login of a user."""
        self._drop([login for login in self._tables.logins.values() if login.user_id == user_id])

    async def purge(self, before: datetime) -> int:
        """Drop expired logins."""
        expired = [login for login in self._tables.logins.values() if login.expires_at < before]
        self._drop(expired[:_PURGED_AT_ONCE])
        return min(len(expired), _PURGED_AT_ONCE)

    def _drop(self, logins: Sequence[Login]) -> None:
        for login in logins:
            del self._tables.logins[login.id]


class MemorySessions(Sessions):
    """`Sessions` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, session: Session) -> None:
        """Store a new session."""
        self._tables.sessions[session.id] = session

    async def get(self, session_id: str, user_id: str) -> Session:
        """Return a session of this user."""
        session = self._tables.sessions.get(session_id)
        if session is None or session.user_id != user_id:
            raise SessionNotFound
        return session

    async def touch(self, session_id: str, user_id: str, at: datetime) -> None:
        """Count one more turn; the store's lock already keeps other writers out."""
        session = await self.get(session_id, user_id)
        self._tables.sessions[session_id] = replace(session, turns=session.turns + 1, updated_at=at)


class MemoryTurns(Turns):
    """`Turns` in dictionaries."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, turn: Turn) -> None:
        """Store a new turn."""
        tables, session_id, reply = self._tables, turn.message.session_id, turn.reply
        if reply.key is not None:
            if (turn.message.user_id, reply.key) in tables.keys:
                raise Taken("the key has a turn")
            tables.keys[turn.message.user_id, reply.key] = reply.id
        tables.turns[reply.id] = turn
        known = (*tables.order.get(session_id, ()), reply.id)
        tables.order[session_id] = tuple(sorted(known, key=lambda one: tables.turns[one].message.position))

    async def window(self, session_id: str, limit: int) -> Window:
        """Return the session's count and its youngest turns that speak."""
        session = self._tables.sessions.get(session_id)
        spoken = [turn for turn in self._of(session_id) if turn.speaks]
        return Window(accepted=session.turns if session else 0, turns=_last(spoken, limit) if session else [])

    async def latest(self, session_id: str, limit: int) -> Sequence[Turn]:
        """Return the youngest turns."""
        return _last(self._of(session_id), limit)

    async def find(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply."""
        turn = self._tables.turns.get(reply_id)
        return turn if turn and turn.message.user_id == user_id else None

    async def find_settled(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply; the store's lock already keeps other writers out."""
        return await self.find(reply_id, user_id)

    async def find_by_key(self, key: str, user_id: str) -> Turn | None:
        """Return the turn of a key."""
        return self._tables.turns.get(self._tables.keys.get((user_id, key), ""))

    def _of(self, session_id: str) -> list[Turn]:
        return [self._tables.turns[reply_id] for reply_id in self._tables.order.get(session_id, ())]


class MemoryReplies(Replies):
    """The replies inside the turns."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def finish(self, reply_id: str, attempt: int, end: End) -> bool:
        """Store an end, if the attempt still runs."""
        turn = self._tables.turns.get(reply_id)
        if turn is None or turn.reply.attempt != attempt or turn.reply.status is not Status.RUNNING:
            return False
        self._tables.turns[reply_id] = replace(turn, reply=turn.reply.ended(end))
        return True

    async def finish_orphans(self, now: datetime, end: End) -> int:
        """End what runs on instances that are not alive."""
        alive = {instance for instance, until in self._tables.instances.items() if until > now}
        running = (turn.reply for turn in self._tables.turns.values() if turn.reply.status is Status.RUNNING)
        orphans = [reply for reply in running if reply.instance_id not in alive]
        for reply in orphans:
            await self.finish(reply.id, reply.attempt, end)
        return len(orphans)


class MemoryInstances(Instances):
    """`Instances` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def renew(self, instance_id: str, until: datetime) -> None:
        """Store a lease."""
        self._tables.instances[instance_id] = until

    async def is_alive(self, instance_id: str, now: datetime) -> bool:
        """Tell whether a lease lasts."""
        until = self._tables.instances.get(instance_id)
        return until is not None and until > now

    async def remove(self, instance_id: str) -> None:
        """Forget an instance."""
        self._tables.instances.pop(instance_id, None)

    async def purge(self, before: datetime) -> int:
        """Drop leases long over."""
        over = [instance for instance, until in self._tables.instances.items() if until < before]
        for instance in over:
            del self._tables.instances[instance]
        return len(over)


def _last(turns: Sequence[Turn], limit: int) -> Sequence[Turn]:
    return turns[max(len(turns) - limit, 0) :]


def _transaction(tables: Tables) -> Transaction:
    return Transaction(
        users=MemoryUsers(tables),
        logins=MemoryLogins(tables),
        sessions=MemorySessions(tables),
        turns=MemoryTurns(tables),
        replies=MemoryReplies(tables),
        instances=MemoryInstances(tables),
    )
