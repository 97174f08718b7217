"""Looking through what is kept, in SQL: every page is walked along an index, from where the last one ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.mapping import as_session, as_turn
from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.sql_chats import SHOWN, SHOWN_TURNS
from chatassist.adapters.persistence.tables import DELETED, MESSAGES, QUESTION_VERSION, SESSIONS
from chatassist.domain.history import Place, Stretch
from chatassist.domain.model import Session
from chatassist.domain.ports.archive import FIRST_NOT_PINNED, Archive, Mark
from chatassist.domain.ports.persistence import MAX_POSITION
from chatassist.domain.turns import Turn

_LIMIT = bindparam("limit", type_=Integer)
_UNTIL = bindparam("until", type_=SESSIONS.c.listed_at.type)
# Pinned or not, one of them at a time: no index can be walked along "pinned, or else younger than". And by force: where
# most sessions are one user's, MySQL 9 would rather read them all and sort.
_LISTED = (
    select(SESSIONS)
    .with_hint(SESSIONS, "FORCE INDEX (ix_sessions_user_id_pinned_listed_at_id)", "mysql")
    .where(
        SESSIONS.c.user_id == bindparam("owner_id"),
        SESSIONS.c.pinned == bindparam("is_pinned", type_=SESSIONS.c.pinned.type),
        SESSIONS.c.listed_at <= _UNTIL,
        or_(SESSIONS.c.listed_at < _UNTIL, SESSIONS.c.id < bindparam("before_id")),
    )
    .order_by(SESSIONS.c.listed_at.desc(), SESSIONS.c.id.desc())
    .limit(_LIMIT)
)
_LIST = Prepared(_LISTED)
# No LIKE: its wildcards would have to be escaped, and what it folds differs from one database to another.
_LIST_NAMED = Prepared(_LISTED.where(func.instr(SESSIONS.c.title, bindparam("keyword")) > 0))

_PLACE = Prepared(
    select(MESSAGES.c.position, MESSAGES.c.version).where(
        MESSAGES.c.id == bindparam("message_id"),
        MESSAGES.c.session_id == bindparam("in_session"),
        func.coalesce(MESSAGES.c.status, "") != DELETED,
    )
)
_AT = bindparam("at", type_=MESSAGES.c.position.type)


def _walk(behind: ColumnElement[bool], *order: ColumnElement[Any]) -> Prepared:
    """Walk the unique index (session, position, version); replies first, else MySQL 9 sorts the session's questions."""
    return Prepared(
        SHOWN_TURNS.prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .where(SHOWN.session_id == bindparam("in_session"), behind)
        .order_by(*order)
        .limit(_LIMIT)
    )


_OLDER = _walk(SHOWN.position <= _AT, SHOWN.position.desc(), SHOWN.version.desc())
_NEWER = _walk(SHOWN.position >= _AT, SHOWN.position, SHOWN.version)
_VERSIONS = Prepared(
    select(MESSAGES.c.position, MESSAGES.c.id)
    .where(
        MESSAGES.c.session_id == bindparam("in_session"),
        MESSAGES.c.position.between(bindparam("first"), bindparam("last")),
        MESSAGES.c.version > QUESTION_VERSION,
        MESSAGES.c.status != DELETED,
    )
    .order_by(MESSAGES.c.position, MESSAGES.c.version)
)


class SqlArchive(Archive):
    """The tables `sessions` and `messages`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def sessions(self, user_id: str, mark: Mark, limit: int, *, keyword: str = "") -> Sequence[Session]:
        """Return the first sessions behind the mark: what is left of the pinned ones, then the others."""
        found = await self._listed(user_id, mark, limit, keyword)
        if mark.pinned and len(found) < limit:
            found += await self._listed(user_id, FIRST_NOT_PINNED, limit - len(found), keyword)
        return found

    async def _listed(self, user_id: str, mark: Mark, limit: int, keyword: str) -> list[Session]:
        sought = {"owner_id": user_id, "is_pinned": mark.pinned, "until": mark.at, "before_id": mark.session_id}
        named = {"keyword": keyword} if keyword else {}
        statement = _LIST_NAMED if keyword else _LIST
        return [as_session(row) for row in await statement.rows(self._db, sought | named | {"limit": limit})]

    async def place(self, session_id: str, message_id: str) -> Place | None:
        """Return where a message stands."""
        rows = await _PLACE.rows(self._db, {"in_session": session_id, "message_id": message_id})
        return Place(position=rows[0][0], is_reply=rows[0][1] > QUESTION_VERSION) if rows else None

    async def turns(self, session_id: str, stretch: Stretch) -> Sequence[Turn]:
        """Return turns in the version they show."""
        at = MAX_POSITION if stretch.position is None else stretch.position
        sought = {"in_session": session_id, "at": at, "limit": stretch.limit}
        if stretch.older:
            return [as_turn(row) for row in reversed(await _OLDER.rows(self._db, sought))]
        return [as_turn(row) for row in await _NEWER.rows(self._db, sought)]

    async def versions(self, session_id: str, first: int, last: int) -> Mapping[int, Sequence[str]]:
        """Return the ids of versions by position."""
        found: dict[int, list[str]] = {}
        for position, reply_id in await _VERSIONS.rows(
            self._db, {"in_session": session_id, "first": first, "last": last}
        ):
            found.setdefault(position, []).append(reply_id)
        return found
