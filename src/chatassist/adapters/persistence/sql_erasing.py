"""What goes for good, in SQL. Each portion is found first and then dropped by id: that locks nothing it passes."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Delete, Select, Table, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.failures import is_duplicate
from chatassist.adapters.persistence.tables import DELETIONS, ERASURES, JOBS, LOGINS, MESSAGES, SESSIONS, USERS, Row
from chatassist.domain.ports.erasing import PORTION, Erasures, Jobs

_SESSIONS_AT_ONCE = 100
_LONG_PAST = datetime(1970, 1, 1, tzinfo=UTC)

_THIS_DELETION = DELETIONS.c.id == bindparam("this_id")
_DROP_USER = delete(USERS).where(USERS.c.id == bindparam("owner_id"))
_DROP_LOGINS = delete(LOGINS).where(LOGINS.c.user_id == bindparam("owner_id"))
_NOTE_ERASURE = insert(ERASURES)
_UNFINISHED = select(ERASURES.c.user_id).where(ERASURES.c.created_at < bindparam("before")).limit(1)
_ERASED = delete(ERASURES).where(ERASURES.c.user_id == bindparam("owner_id"))
_OVERDUE = select(DELETIONS.c.id).where(DELETIONS.c.until <= bindparam("now")).order_by(DELETIONS.c.until).limit(1)
_DOOM = update(DELETIONS).where(_THIS_DELETION, DELETIONS.c.until <= bindparam("now")).values(until=_LONG_PAST)
_SOME_SESSIONS = select(SESSIONS.c.id).where(SESSIONS.c.deletion_id == bindparam("this_id")).limit(_SESSIONS_AT_ONCE)
_SOME_MESSAGES = select(MESSAGES.c.id).where(MESSAGES.c.session_id.in_(bindparam("ids", expanding=True))).limit(PORTION)
_DROP_DELETION = delete(DELETIONS).where(_THIS_DELETION)


def _of_user(table: Table) -> Select[Any]:
    return select(table.c.id).where(table.c.user_id == bindparam("owner_id")).limit(PORTION)


def _by_id(table: Table) -> Delete:
    return delete(table).where(table.c.id.in_(bindparam("ids", expanding=True)))


_DROP_MESSAGES, _DROP_SESSIONS = _by_id(MESSAGES), _by_id(SESSIONS)
_OWNED = [
    (_of_user(table), _by_id(table))
    for table in Row.metadata.sorted_tables
    if "user_id" in table.c and table is not ERASURES
]
"""Every table whose rows are some user's, those that are yet to come as well."""


class SqlErasures(Erasures):
    """The table `erasures`, and everything that goes."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def begin(self, user_id: str, at: datetime) -> bool:
        """Delete the user first: whoever adds anything of his holds that row."""
        owner = {"owner_id": user_id}
        if not (await self._db.execute(_DROP_USER, owner)).rowcount:
            return False
        await self._db.execute(_DROP_LOGINS, owner)
        await self._db.execute(_NOTE_ERASURE, {"user_id": user_id, "created_at": at})
        return True

    async def unfinished(self, before: datetime) -> str | None:
        """Return a deleted user."""
        found: str | None = await self._db.scalar(_UNFINISHED, {"before": before})
        return found

    async def erase_account(self, user_id: str) -> bool:
        """Drop a portion of the first table that has any."""
        for find, drop in _OWNED:
            if await self._drop(find, drop, {"owner_id": user_id}):
                return True
        await self._db.execute(_ERASED, {"owner_id": user_id})
        return False

    async def overdue(self, now: datetime) -> str | None:
        """Return a deletion, after putting it beyond recall."""
        found: str | None = await self._db.scalar(_OVERDUE, {"now": now})
        if found is None or not (await self._db.execute(_DOOM, {"this_id": found, "now": now})).rowcount:
            return None
        return found

    async def erase_deletion(self, deletion_id: str) -> bool:
        """Drop a portion of messages, and with the last one the sessions."""
        sessions = (await self._db.execute(_SOME_SESSIONS, {"this_id": deletion_id})).scalars().all()
        if not sessions:
            await self._db.execute(_DROP_DELETION, {"this_id": deletion_id})
            return False
        if await self._drop(_SOME_MESSAGES, _DROP_MESSAGES, {"ids": sessions}) < PORTION:
            await self._db.execute(_DROP_SESSIONS, {"ids": sessions})
        return True

    async def _drop(self, find: Select[Any], drop: Delete, sought: dict[str, Any]) -> int:
        ids = (await self._db.execute(find, sought)).scalars().all()
        if ids:
            await self._db.execute(drop, {"ids": ids})
        return len(ids)


_TAKE = (
    update(JOBS)
    .where(
        JOBS.c.name == bindparam("job"), (JOBS.c.owner == bindparam("new_owner")) | (JOBS.c.until <= bindparam("now"))
    )
    .values(owner=bindparam("new_owner"), until=bindparam("new_until"))
)
_FIND_JOB = select(JOBS.c.name).where(JOBS.c.name == bindparam("job"))
_ADD_JOB = insert(JOBS)


class SqlJobs(Jobs):
    """The table `jobs`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def take(self, name: str, owner: str, now: datetime, until: datetime) -> bool:
        """Take a job that is free; of two that are the first ever to do so one finds it taken."""
        if (await self._db.execute(_TAKE, {"job": name, "new_owner": owner, "now": now, "new_until": until})).rowcount:
            return True
        if (await self._db.execute(_FIND_JOB, {"job": name})).first():
            return False
        try:
            await self._db.execute(_ADD_JOB, {"name": name, "owner": owner, "until": until})
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            return False
        return True
