"""The store of one process without a database: dictionaries, with the same promises as the SQL one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from chatassist.adapters.persistence.memory_chats import PURGED_AT_ONCE, MemoryReplies, MemorySessions, MemoryTurns
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.model import Login, User
from chatassist.domain.ports.persistence import Instances, Logins, Store, Taken, Transaction, Users

T = TypeVar("T")
Work = Callable[[Transaction], Awaitable[T]]


class MemoryStore(Store):
    """One writer at a time, on tables over the kept ones that are merged into them when the unit succeeds."""

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
            tables = self._tables.overlaid()
            result = await work(transaction_on(tables))
            tables.merge()
            self._merged(tables)
            return result

    def _merged(self, changes: Tables) -> None:
        """Do what a kind of this store does after a unit of work."""

    async def read(self, query: Work[T]) -> T:
        """Run `query` on what was last committed."""
        return await query(transaction_on(self._tables))

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
        self._drop(expired[:PURGED_AT_ONCE])
        return min(len(expired), PURGED_AT_ONCE)

    def _drop(self, logins: Sequence[Login]) -> None:
        for login in logins:
            del self._tables.logins[login.id]


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


def transaction_on(tables: Tables) -> Transaction:
    """Return the view of these tables that a unit of work is given."""
    return Transaction(
        users=MemoryUsers(tables),
        logins=MemoryLogins(tables),
        sessions=MemorySessions(tables),
        turns=MemoryTurns(tables),
        replies=MemoryReplies(tables),
        instances=MemoryInstances(tables),
    )
