"""Chat sessions in SQL. Whatever changes one raises its revision and its user's, in the same statement."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Integer, String, bindparam, case, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.mapping import as_session, session_values
from chatassist.adapters.persistence.prepared import Prepared, Values
from chatassist.adapters.persistence.sql_people import OF_METER, SqlUsages, meter_values
from chatassist.adapters.persistence.tables import SESSIONS, USAGE_DAYS, USERS
from chatassist.adapters.persistence.together import Together
from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Session, TitleSource
from chatassist.domain.ports.persistence import Sessions
from chatassist.domain.titles import first_words, preview_of
from chatassist.domain.usage import ONE_MESSAGE, Meter

_OWN = (SESSIONS.c.id == bindparam("session_id")) & (SESSIONS.c.user_id == bindparam("owner_id"))
_KEPT = SESSIONS.c.deletion_id.is_(None)
_OF_ITS_USER = USERS.c.id == SESSIONS.c.user_id
_REVISE_SESSION: dict[Column[Any], Any] = {SESSIONS.c.revision: SESSIONS.c.revision + 1}
_REVISE_USER: dict[Column[Any], Any] = {USERS.c.revision: USERS.c.revision + 1}

_ADD = Prepared(insert(SESSIONS), *SESSIONS.c.keys())
_GET = select(SESSIONS).where(_OWN, _KEPT)
_MORE = bindparam("more", type_=Integer)
_AT = bindparam("at", type_=SESSIONS.c.updated_at.type)
_BEGIN = {
    SESSIONS.c.turns: SESSIONS.c.turns + _MORE,
    SESSIONS.c.messages: SESSIONS.c.messages + 2 * _MORE,
    SESSIONS.c.running: SESSIONS.c.running + 1,
    SESSIONS.c.updated_at: _AT,
    SESSIONS.c.listed_at: _AT,
    SESSIONS.c.title: case((SESSIONS.c.title == "", bindparam("words", type_=String)), else_=SESSIONS.c.title),
    SESSIONS.c.preview: func.coalesce(bindparam("seen", type_=String), SESSIONS.c.preview),
    SESSIONS.c.model: func.coalesce(bindparam("chosen", type_=String), SESSIONS.c.model),
} | _REVISE_SESSION
_TOUCH = Together(SESSIONS, _OWN, _KEPT, _BEGIN, (USERS, _OF_ITS_USER, _REVISE_USER))
_COUNTED: dict[Column[Any], Any] = {USAGE_DAYS.c.messages: USAGE_DAYS.c.messages + 1}
# The tables in the order of an end: MySQL locks in it, and whoever locks in one order never waits in a circle.
_TOUCH_AND_COUNT = Together(
    SESSIONS, _OWN, _KEPT, _BEGIN, (USERS, _OF_ITS_USER, _REVISE_USER), (USAGE_DAYS, OF_METER, _COUNTED)
)
_HOLD = Together(SESSIONS, _OWN, _KEPT, _REVISE_SESSION, (USERS, _OF_ITS_USER, _REVISE_USER))
_ENTITLE = Together(
    SESSIONS,
    SESSIONS.c.id == bindparam("session_id"),
    _KEPT & (SESSIONS.c.title_source == TitleSource.QUESTION.value),
    {SESSIONS.c.title: bindparam("new_title"), SESSIONS.c.title_source: TitleSource.MODEL.value} | _REVISE_SESSION,
    (USERS, _OF_ITS_USER, _REVISE_USER),
)
_NEW_TITLE = bindparam("new_title", type_=SESSIONS.c.title.type)
_EDIT = Together(
    SESSIONS,
    _OWN,
    _KEPT,
    {
        SESSIONS.c.title: func.coalesce(_NEW_TITLE, SESSIONS.c.title),
        SESSIONS.c.title_source: case((_NEW_TITLE.is_not(None), TitleSource.USER.value), else_=SESSIONS.c.title_source),
        SESSIONS.c.pinned: func.coalesce(bindparam("new_pin", type_=SESSIONS.c.pinned.type), SESSIONS.c.pinned),
    }
    | _REVISE_SESSION,
    (USERS, _OF_ITS_USER, _REVISE_USER),
)


class SqlSessions(Sessions):
    """The table `sessions`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, session: Session) -> None:
        """Store a new session."""
        await _ADD.change(self._db, session_values(session))

    async def get(self, session_id: str, user_id: str) -> Session:
        """Return a session of this user."""
        row = (await self._db.execute(_GET, {"session_id": session_id, "owner_id": user_id})).first()
        if row is None:
            raise SessionNotFound
        return as_session(row)

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
        """Let a reply begin; the UPDATE locks the rows of session, user and day until the unit ends."""
        new = {"session_id": session_id, "owner_id": user_id, "at": at, "more": turns, "chosen": model}
        new |= {"seen": None if said is None else preview_of(said), "words": first_words(said or "")}
        if meter and await self._touch_and_count(new | meter_values(meter)):
            return
        if not await _TOUCH.change(self._db, new):
            raise SessionNotFound
        if meter:
            await SqlUsages(self._db).count(meter, ONE_MESSAGE)

    async def _touch_and_count(self, new: Values) -> bool:
        """Do both where that is one round trip; False where it is not, or the session is missing, or the day."""
        return self._db.dialect.name == "mysql" and await _TOUCH_AND_COUNT.change(self._db, new)

    async def hold(self, session_id: str, user_id: str) -> None:
        """Lock the rows of session and user."""
        if not await _HOLD.change(self._db, {"session_id": session_id, "owner_id": user_id}):
            raise SessionNotFound

    async def entitle(self, session_id: str, title: str) -> bool:
        """Store a model's title."""
        return await _ENTITLE.change(self._db, {"session_id": session_id, "new_title": title})

    async def edit(
        self, session_id: str, user_id: str, *, title: str | None = None, pinned: bool | None = None
    ) -> None:
        """Store title and pin."""
        new = {"session_id": session_id, "owner_id": user_id, "new_title": title, "new_pin": pinned}
        if not await _EDIT.change(self._db, new):
            raise SessionNotFound
