"""Everything kept about a user, out of SQL: along indexes whose order nothing changes, so that no page costs more."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Integer, LargeBinary, Select, bindparam, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.mapping import REPLY_COLUMNS, as_login, as_reply, as_session
from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.sql_chats import is_shown
from chatassist.adapters.persistence.tables import (
    DELETED,
    LOGINS,
    MESSAGES,
    QUESTION_VERSION,
    SESSIONS,
    USAGE_DAYS,
)
from chatassist.domain.model import Login, Session
from chatassist.domain.ports.exports import Day, Entry, Exports, Page
from chatassist.domain.turns import Message
from chatassist.domain.usage import Used

_LOOKED_AT = 500  # rows whose texts are measured at a time
_LIMIT = bindparam("limit", type_=Integer)

_DAYS = Prepared(
    select(
        *(USAGE_DAYS.c.day, USAGE_DAYS.c.messages, USAGE_DAYS.c.input_tokens, USAGE_DAYS.c.output_tokens),
        USAGE_DAYS.c.audio_ms,
    )
    .where(USAGE_DAYS.c.subject == bindparam("of_subject"), USAGE_DAYS.c.day > bindparam("after"))
    .order_by(USAGE_DAYS.c.day)
    .limit(_LIMIT)
)
_LOGINS = Prepared(
    select(LOGINS)
    .where(LOGINS.c.user_id == bindparam("owner_id"), LOGINS.c.id > bindparam("after"))
    .order_by(LOGINS.c.id)
    .limit(_LIMIT)
)
_SESSIONS = Prepared(
    select(SESSIONS)
    .where(
        SESSIONS.c.user_id == bindparam("owner_id"),
        SESSIONS.c.id > bindparam("after"),
        SESSIONS.c.deletion_id.is_(None),
    )
    .order_by(SESSIONS.c.id)
    .limit(_LIMIT)
)

_OTHER = MESSAGES.alias("other")


def _after_place(*columns: ColumnElement[Any]) -> Prepared:
    """Walk the unique index (session, position, version): MySQL finds no range in a comparison of pairs."""
    position = bindparam("after_position", type_=Integer)
    read: Select[Any] = (
        select(*columns)
        .where(
            MESSAGES.c.session_id == bindparam("in_session"),
            MESSAGES.c.position >= position,
            or_(MESSAGES.c.position > position, MESSAGES.c.version > bindparam("after_version", type_=Integer)),
            func.coalesce(MESSAGES.c.status, "") != DELETED,
        )
        .order_by(MESSAGES.c.position, MESSAGES.c.version)
        .limit(_LIMIT)
    )
    return Prepared(read)


def _bytes(text: ColumnElement[Any]) -> ColumnElement[int]:
    return func.coalesce(func.length(cast(text, LargeBinary)), 0)  # SQLite counts characters of what is no blob


_SIZES = _after_place(_bytes(MESSAGES.c.content) + _bytes(MESSAGES.c.thinking))
_ENTRIES = _after_place(
    MESSAGES.c.position,
    MESSAGES.c.version,
    is_shown(MESSAGES, _OTHER).label("shown"),
    *(MESSAGES.c[name] for name in REPLY_COLUMNS),
)


class SqlExports(Exports):
    """Reads of several tables."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def days(self, subject: str, after: date, limit: int) -> Sequence[Day]:
        """Return days of a subject."""
        rows = await _DAYS.rows(self._db, {"of_subject": subject, "after": after, "limit": limit})
        return [
            Day(day=day, used=Used(messages=messages, input_tokens=read, output_tokens=written, audio_ms=audio_ms))
            for day, messages, read, written, audio_ms in rows
        ]

    async def logins(self, user_id: str, after: str, limit: int) -> Sequence[Login]:
        """Return logins of a user."""
        rows = await _LOGINS.rows(self._db, {"owner_id": user_id, "after": after, "limit": limit})
        return [as_login(row) for row in rows]

    async def sessions(self, user_id: str, after: str, limit: int) -> Sequence[Session]:
        """Return sessions of a user."""
        rows = await _SESSIONS.rows(self._db, {"owner_id": user_id, "after": after, "limit": limit})
        return [as_session(row) for row in rows]

    async def entries(self, session: Session, after: tuple[int, int], room: int) -> Page:
        """Measure first: a text may have one character or 64,000."""
        position, version = after
        sought = {"in_session": session.id, "after_position": position, "after_version": version}
        sizes = [size for (size,) in await _SIZES.rows(self._db, sought | {"limit": _LOOKED_AT})]
        count = _fitting(sizes, room)
        rows = await _ENTRIES.rows(self._db, sought | {"limit": count}) if count else []
        more = count < len(sizes) or len(sizes) == _LOOKED_AT
        return Page(entries=[_entry(session, row) for row in rows], more=more and bool(rows))


def _fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of the first have room together; one always has."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if count and total > room:
            return count
    return len(sizes)


def _entry(session: Session, row: Sequence[Any]) -> Entry:
    position, version, shown, *columns = row
    if version > QUESTION_VERSION:
        return Entry(position=position, said=as_reply(columns), shown=bool(shown))
    known = dict(zip(REPLY_COLUMNS, columns, strict=True))
    message = Message(
        id=known["id"],
        session_id=session.id,
        user_id=session.user_id,
        position=position,
        content=known["content"],
        created_at=known["created_at"],
    )
    return Entry(position=position, said=message)
