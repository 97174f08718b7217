"""Users, their logins and what they use in dictionaries."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from chatassist.adapters.persistence.memory_chats import PURGED_AT_ONCE
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.model import Login, User, UserChange
from chatassist.domain.ports.people import Logins, Taken, Usages, Users
from chatassist.domain.usage import Meter, Used


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

    async def change(self, user_id: str, change: UserChange) -> None:
        """Store some fields."""
        if known := self._tables.users.get(user_id):
            self._tables.users[user_id] = known.changed(change)

    async def revise(self, user_id: str) -> bool:
        """Raise the revision."""
        return self._tables.revise_user(user_id)

    async def hold(self, user_id: str) -> bool:
        """Tell whether there is such a user."""
        return user_id in self._tables.users

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


class MemoryUsages(Usages):
    """`Usages` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def count(self, meter: Meter, used: Used) -> None:
        """Add to a day."""
        self._tables.count(meter, used)

    async def find(self, meter: Meter) -> Used:
        """Return a day."""
        return self._tables.usages.get(meter, Used())
