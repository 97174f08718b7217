"""Searching in SQL: messages are looked through along their user's index, newest first, and no index knows words."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, String, bindparam, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.sql_chats import is_shown
from chatassist.adapters.persistence.tables import MESSAGES, QUESTION_VERSION, SESSIONS
from chatassist.domain.ports.search import Hit, Looked, Search
from chatassist.domain.search import LEAD, SHOWN, snippet_of

_ABOVE_ALL_IDS = "g"  # which are hex

_MESSAGE = MESSAGES.alias("message")
_OTHER = MESSAGES.alias("other")
_INDEX = f"FORCE INDEX ({next(index.name for index in MESSAGES.indexes if index.columns.keys() == ['user_id', 'id'])})"
_OLDER = (_MESSAGE.c.user_id == bindparam("owner_id")) & (_MESSAGE.c.id < bindparam("before", type_=String))

_DOWN_TO = Prepared(
    select(_MESSAGE.c.id)
    .with_hint(_MESSAGE, _INDEX, "mysql")
    .where(_OLDER)
    .order_by(_MESSAGE.c.id.desc())
    .limit(1)
    .offset(bindparam("others", type_=Integer))
)
# Not LIKE, which has wildcards, an escape, and on SQLite no case; with the column's collation this compares bytes.
_PLACE: ColumnElement[int] = func.instr(_MESSAGE.c.content, bindparam("keyword", type_=String), type_=Integer)
_START = case((_PLACE > LEAD, _PLACE - LEAD), else_=1)
_FOUND = Prepared(
    select(
        _MESSAGE.c.session_id,
        SESSIONS.c.title,
        _MESSAGE.c.id,
        _PLACE,
        func.substr(_MESSAGE.c.content, _START, SHOWN + 1),
        func.coalesce(_MESSAGE.c.ended_at, _MESSAGE.c.created_at),
    )
    # Messages first, and along the index in use: what else is asked is asked of hits alone.
    .prefix_with("STRAIGHT_JOIN", dialect="mysql")
    .with_hint(_MESSAGE, _INDEX, "mysql")
    .join_from(_MESSAGE, SESSIONS, SESSIONS.c.id == _MESSAGE.c.session_id)
    .where(
        _OLDER,
        _MESSAGE.c.id >= bindparam("down_to", type_=String),
        _PLACE > 0,
        SESSIONS.c.listed_at.is_not(None),
        SESSIONS.c.deletion_id.is_(None),
        or_(_MESSAGE.c.version == QUESTION_VERSION, is_shown(_MESSAGE, _OTHER)),
    )
    .order_by(_MESSAGE.c.id.desc())
    .limit(bindparam("limit", type_=Integer))
)


class SqlSearch(Search):
    """Over the tables `messages` and `sessions`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def look(self, user_id: str, keyword: str, *, before: str | None, messages: int, limit: int) -> Looked:
        """Find in the index how far to look, then look."""
        older = {"owner_id": user_id, "before": before or _ABOVE_ALL_IDS}
        end = await _DOWN_TO.rows(self._db, older | {"others": messages - 1})
        down_to = end[0][0] if end else None
        sought = older | {"down_to": down_to or "", "keyword": keyword, "limit": limit}
        return Looked(hits=[_hit(row) for row in await _FOUND.rows(self._db, sought)], down_to=down_to)


def _hit(columns: Sequence[Any]) -> Hit:
    session_id, title, message_id, place, excerpt, at = columns
    return Hit(session_id=session_id, title=title, message_id=message_id, snippet=snippet_of(excerpt, place - 1), at=at)
