"""Users, logins and use in SQL. Statements are built once: a statement that lives on is compiled only once."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.failures import is_duplicate
from chatassist.adapters.persistence.mapping import as_login, as_user, login_values, user_values
from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.tables import LOGINS, USAGE_DAYS, USERS
from chatassist.domain.model import Login, User, UserChange
from chatassist.domain.ports.people import Logins, Taken, Usages, Users
from chatassist.domain.usage import Meter, Used

_PURGED_AT_ONCE = 1000

_FIND_USER = select(USERS).where(USERS.c.openid == bindparam("openid"))
_FIND_USER_BY_ID = select(USERS).where(USERS.c.id == bindparam("id"))
_ADD_USER = insert(USERS)
_KNOWN_USER = update(USERS).where(USERS.c.id == bindparam("known_id"))
_HOLD_USER = select(USERS.c.id).where(USERS.c.id == bindparam("id")).with_for_update()  # SQLite has one writer anyway
_REVISED_USER = _KNOWN_USER.values(revision=USERS.c.revision + 1)
_REVISE = Prepared(_REVISED_USER)
_SET_BLOCKED = _KNOWN_USER.values(blocked=bindparam("blocked"))

_FIND_LOGIN = Prepared(
    select(*LOGINS.c, *USERS.c).join(USERS, USERS.c.id == LOGINS.c.user_id).where(LOGINS.c.id == bindparam("login_id"))
)
_ADD_LOGIN = insert(LOGINS)
_END_LOGIN = delete(LOGINS).where(LOGINS.c.id == bindparam("login_id"))
_END_LOGINS = delete(LOGINS).where(LOGINS.c.user_id == bindparam("owner_id"))
_EXPIRED_LOGINS = (
    select(LOGINS.c.id).where(LOGINS.c.expires_at < bindparam("before")).order_by(LOGINS.c.expires_at)
).limit(_PURGED_AT_ONCE)
_DROP_LOGINS = delete(LOGINS).where(LOGINS.c.id.in_(bindparam("login_ids", expanding=True)))

OF_METER = (USAGE_DAYS.c.subject == bindparam("meter_subject")) & (USAGE_DAYS.c.day == bindparam("meter_day"))
_USED = (USAGE_DAYS.c.messages, USAGE_DAYS.c.input_tokens, USAGE_DAYS.c.output_tokens, USAGE_DAYS.c.audio_ms)
_COUNT = Prepared(
    update(USAGE_DAYS)
    .where(OF_METER)
    .values({column: column + bindparam(f"more_{column.name}", type_=column.type) for column in _USED})
)
_BEGIN_DAY = Prepared(insert(USAGE_DAYS), *USAGE_DAYS.c.keys())
# On MySQL an INSERT that meets another's row locks it shared: of several that then want to UPDATE it, none could.
_BEGUN = mysql.insert(USAGE_DAYS)
_BEGIN_DAY_ON_MYSQL = Prepared(
    _BEGUN.on_duplicate_key_update({column.name: column + _BEGUN.inserted[column.name] for column in _USED}),
    *USAGE_DAYS.c.keys(),
)
_FIND_DAY = select(*_USED).where(OF_METER)


class SqlUsers(Users):
    """The table `users`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def find(self, openid: str) -> User | None:
        """Return the user of an openid."""
        row = (await self._db.execute(_FIND_USER, {"openid": openid})).first()
        return None if row is None else as_user(row)

    async def find_by_id(self, user_id: str) -> User | None:
        """Return the user of an id."""
        row = (await self._db.execute(_FIND_USER_BY_ID, {"id": user_id})).first()
        return None if row is None else as_user(row)

    async def add(self, user: User) -> None:
        """Store a new user. Raises Taken."""
        try:
            await self._db.execute(_ADD_USER, user_values(user))
        except IntegrityError as error:
            if is_duplicate(error, "openid"):
                raise Taken("the openid has a user") from error
            raise

    async def change(self, user_id: str, change: UserChange) -> None:
        """Store some columns, and no others: nothing that was read before decides what they become."""
        await self._db.execute(_REVISED_USER.values(**change.fields), {"known_id": user_id})

    async def revise(self, user_id: str) -> bool:
        """Raise the revision; the UPDATE locks the row."""
        return bool(await _REVISE.change(self._db, {"known_id": user_id}))

    async def hold(self, user_id: str) -> bool:
        """Lock the row."""
        return (await self._db.execute(_HOLD_USER, {"id": user_id})).first() is not None

    async def set_blocked(self, user_id: str, *, blocked: bool) -> None:
        """Store whether the user is blocked."""
        await self._db.execute(_SET_BLOCKED, {"blocked": blocked, "known_id": user_id})


class SqlLogins(Logins):
    """The table `logins`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def find(self, login_id: str) -> tuple[Login, User] | None:
        """Return the login with its user, in one round trip."""
        rows = await _FIND_LOGIN.rows(self._db, {"login_id": login_id})
        split = len(LOGINS.c)
        return (as_login(rows[0][:split]), as_user(rows[0][split:])) if rows else None

    async def add(self, login: Login) -> None:
        """Store a new login."""
        await self._db.execute(_ADD_LOGIN, login_values(login))

    async def end(self, login_id: str) -> None:
        """End one login."""
        await self._db.execute(_END_LOGIN, {"login_id": login_id})

    async def end_all(self, user_id: str) -> None:
        """End every login of a user."""
        await self._db.execute(_END_LOGINS, {"owner_id": user_id})

    async def purge(self, before: datetime) -> int:
        """Drop expired logins by id: a DELETE by time would lock the rows it passes."""
        expired = (await self._db.execute(_EXPIRED_LOGINS, {"before": before})).scalars().all()
        if not expired:
            return 0
        return (await self._db.execute(_DROP_LOGINS, {"login_ids": expired})).rowcount


class SqlUsages(Usages):
    """The table `usage_days`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def count(self, meter: Meter, used: Used) -> None:
        """Add to a day; of two that begin it at once one finds it begun. On SQLite there are no two."""
        more = asdict(used)
        known = meter_values(meter) | {f"more_{name}": value for name, value in more.items()}
        if await _COUNT.change(self._db, known):
            return
        begin = _BEGIN_DAY_ON_MYSQL if self._db.dialect.name == "mysql" else _BEGIN_DAY
        await begin.change(self._db, {"subject": meter.subject, "day": meter.day} | more)

    async def find(self, meter: Meter) -> Used:
        """Return a day."""
        row = (await self._db.execute(_FIND_DAY, meter_values(meter))).first()
        if row is None:
            return Used()
        messages, read, written, audio_ms = row
        return Used(messages=messages, input_tokens=read, output_tokens=written, audio_ms=audio_ms)


def meter_values(meter: Meter) -> dict[str, Any]:
    """Return what finds a meter's day."""
    return {"meter_subject": meter.subject, "meter_day": meter.day}
