"""Deletions that can be undone, in SQL."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.mapping import QUESTION_COLUMNS, REPLY_COLUMNS, as_turn
from chatassist.adapters.persistence.tables import DELETIONS, MESSAGES, QUESTION_VERSION, SESSIONS
from chatassist.domain.ports.erasing import Deletion, Deletions
from chatassist.domain.turns import Status, Turn

_OF_USER = SESSIONS.c.user_id == bindparam("owner_id")
_THIS = SESSIONS.c.id == bindparam("this_id")
_OF_DELETION = SESSIONS.c.deletion_id == bindparam("this_id")
_QUESTION, _REPLY = MESSAGES.alias("question"), MESSAGES.alias("reply")


def _running(*sessions: ColumnElement[bool]) -> Select[Any]:
    """Begin with what runs anywhere: that is little, while the messages of a user or a session may be very many."""
    is_question = and_(
        _QUESTION.c.session_id == _REPLY.c.session_id,
        _QUESTION.c.position == _REPLY.c.position,
        _QUESTION.c.version == QUESTION_VERSION,
    )
    columns = (*(_QUESTION.c[name] for name in QUESTION_COLUMNS), *(_REPLY.c[name] for name in REPLY_COLUMNS))
    return (
        select(*columns)
        .select_from(_REPLY)
        .with_hint(_REPLY, "FORCE INDEX (ix_messages_status_instance_id)", "mysql")
        .with_hint(_REPLY, "INDEXED BY ix_messages_status_instance_id", "sqlite")
        .join(SESSIONS, SESSIONS.c.id == _REPLY.c.session_id)
        .join(_QUESTION, is_question)
        .where(*sessions, _REPLY.c.status == Status.RUNNING.value)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
    )


_RUNNING = _running(_OF_USER)
_RUNNING_IN_SESSION = _running(_OF_USER, _THIS)
_RUNNING_IN_DELETION = _running(_OF_USER, _OF_DELETION)

_MARK = (
    update(SESSIONS)
    .where(_OF_USER, SESSIONS.c.deletion_id.is_(None))
    .values(deletion_id=bindparam("deletion"), listed_at=None, revision=SESSIONS.c.revision + 1)
)
_MARK_ONE = _MARK.where(_THIS)
_COUNT = select(func.sum(SESSIONS.c.messages)).where(_OF_DELETION)
_ADD = insert(DELETIONS)
_UNDONE = (
    update(SESSIONS)
    .where(_OF_DELETION)
    .values(
        listed_at=case((SESSIONS.c.spoken | (SESSIONS.c.running > 0), SESSIONS.c.updated_at)),
        deletion_id=None,
        revision=SESSIONS.c.revision + 1,
    )
)
_THIS_DELETION = DELETIONS.c.id == bindparam("this_id")
_EMPTIED = update(DELETIONS).where(_THIS_DELETION).values(sessions=0, messages=0)
_HOLD = select(DELETIONS).where(_THIS_DELETION, DELETIONS.c.user_id == bindparam("owner_id")).with_for_update()
_CAN_BE_UNDONE = (DELETIONS.c.until > bindparam("now")) & (DELETIONS.c.sessions > 0)
_FIND_BY_SESSION = (
    select(DELETIONS)
    .join(SESSIONS, SESSIONS.c.deletion_id == DELETIONS.c.id)
    .where(_OF_USER, SESSIONS.c.id == bindparam("this_id"), _CAN_BE_UNDONE)
)
_FIND_ALL = (  # along the index of users, which ends with the ids; those are as old as they are small
    select(DELETIONS)
    .where(DELETIONS.c.user_id == bindparam("owner_id"), DELETIONS.c.session_id.is_(None), _CAN_BE_UNDONE)
    .order_by(DELETIONS.c.id.desc())
    .limit(1)
)


class SqlDeletions(Deletions):
    """The table `deletions`, and the sessions that belong to its rows."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def running(self, user_id: str, within: str | None = None) -> Sequence[Turn]:
        """Return what runs; an id is a session's or a deletion's, and never both."""
        if within is None:
            return await self._turns(_RUNNING, {"owner_id": user_id})
        sought = {"owner_id": user_id, "this_id": within}
        in_deletion = await self._turns(_RUNNING_IN_DELETION, sought)
        return in_deletion or await self._turns(_RUNNING_IN_SESSION, sought)

    async def _turns(self, statement: Select[Any], sought: dict[str, Any]) -> Sequence[Turn]:
        return [as_turn(row) for row in await self._db.execute(statement, sought)]

    async def add(self, deletion: Deletion) -> Deletion | None:
        """Delete sessions; the UPDATE locks their rows."""
        of = {"deletion": deletion.id, "owner_id": deletion.user_id}
        if deletion.session_id is None:
            marked = await self._db.execute(_MARK, of)
        else:
            marked = await self._db.execute(_MARK_ONE, of | {"this_id": deletion.session_id})
        if not marked.rowcount:
            return None
        messages = int(await self._db.scalar(_COUNT, {"this_id": deletion.id}) or 0)
        counted = replace(deletion, sessions=marked.rowcount, messages=messages)
        await self._db.execute(_ADD, {name: getattr(counted, name) for name in DELETIONS.c.keys()})  # noqa: SIM118
        return counted

    async def find(self, user_id: str, session_id: str | None, now: datetime) -> Deletion | None:
        """Return a deletion that can be undone."""
        sought = {"owner_id": user_id, "now": now}
        if session_id is None:
            return await self._one(_FIND_ALL, sought)
        return await self._one(_FIND_BY_SESSION, sought | {"this_id": session_id})

    async def hold(self, deletion_id: str, user_id: str) -> Deletion | None:
        """Return a deletion, and lock its row."""
        return await self._one(_HOLD, {"this_id": deletion_id, "owner_id": user_id})

    async def _one(self, statement: Select[Any], sought: dict[str, Any]) -> Deletion | None:
        row = (await self._db.execute(statement, sought)).mappings().first()
        return Deletion(**row) if row else None

    async def undo(self, deletion: Deletion) -> int:
        """Bring sessions back."""
        restored = await self._db.execute(_UNDONE, {"this_id": deletion.id})
        await self._db.execute(_EMPTIED, {"this_id": deletion.id})
        return restored.rowcount
