"""Sessions, turns, replies and the instances that produce them, in SQL. A turn is two rows of `messages`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, bindparam, delete, func, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.failures import is_duplicate
from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.tables import (
    INSTANCES,
    MESSAGES,
    QUESTION_COLUMNS,
    QUESTION_VERSION,
    REPLY_COLUMNS,
    SESSIONS,
    as_session,
    as_turn,
    session_values,
    turn_values,
)
from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import End, FinishReason, Session, Status, Turn
from chatassist.domain.ports.persistence import Instances, Replies, Sessions, Taken, Turns, Window

_ADD_SESSION = insert(SESSIONS)
_GET_SESSION = select(SESSIONS).where(
    SESSIONS.c.id == bindparam("session_id"), SESSIONS.c.user_id == bindparam("owner_id")
)
_TOUCH_SESSION = Prepared(
    update(SESSIONS)
    .where(SESSIONS.c.id == bindparam("session_id"), SESSIONS.c.user_id == bindparam("owner_id"))
    .values(turns=SESSIONS.c.turns + 1, updated_at=bindparam("at"))
)

_QUESTION = MESSAGES.alias("question")
_REPLY = MESSAGES.alias("reply")
_TURNS = (
    select(*(_QUESTION.c[name] for name in QUESTION_COLUMNS), *(_REPLY.c[name] for name in REPLY_COLUMNS))
    .join_from(
        _REPLY,
        _QUESTION,
        (_QUESTION.c.session_id == _REPLY.c.session_id)
        & (_QUESTION.c.position == _REPLY.c.position)
        & (_QUESTION.c.version == QUESTION_VERSION),
    )
    .where(_REPLY.c.version > QUESTION_VERSION)
)
_FIND_TURN = _TURNS.where(_REPLY.c.id == bindparam("reply_id"), _REPLY.c.user_id == bindparam("owner_id"))
_FIND_SETTLED_TURN = _FIND_TURN.with_for_update()  # waits for an uncommitted insert; SQLite has one writer anyway
_FIND_TURN_BY_KEY = _TURNS.where(_REPLY.c.client_key == bindparam("key"), _REPLY.c.user_id == bindparam("owner_id"))
_ADD_TURN = Prepared(insert(MESSAGES), *MESSAGES.c.keys())


def _youngest(turns: Select[Any]) -> Select[Any]:
    """Walk the unique index (session, position, version) from its end."""
    return (
        turns.where(_REPLY.c.session_id == bindparam("session_id"))
        .order_by(_REPLY.c.position.desc(), _REPLY.c.version.desc())
        .limit(bindparam("limit", type_=SESSIONS.c.turns.type))
    )


_LATEST = _youngest(_TURNS)
_COUNT = select(SESSIONS.c.turns).where(SESSIONS.c.id == bindparam("session_id"))
_ENDED_WELL: list[ColumnElement[str]] = [
    literal_column(f"'{status.value}'") for status in (Status.COMPLETE, Status.STOPPED)
]
_WINDOW = Prepared(
    _youngest(
        # What `Turn.speaks` says. The length, because MySQL holds a text of blanks to equal ''. No derived table: with
        # its long texts MariaDB would write it to disk.
        _TURNS.add_columns(_COUNT.scalar_subquery()).where(
            _REPLY.c.status.in_(_ENDED_WELL),
            func.length(_REPLY.c.content) > 0,
            func.coalesce(_REPLY.c.finish_reason, "") != FinishReason.BLOCKED.value,
        )
    )
)

_ALIVE = select(INSTANCES.c.id).where(INSTANCES.c.until > bindparam("now"))


def _ending(rows: Update) -> dict[bool, Update]:
    """Return the statements that end `rows`: [True] keeps the stored text, [False] replaces it."""
    names = ("status", "finish_reason", "reason", "model", "input_tokens", "output_tokens", "ended_at")
    new = {name: bindparam(f"new_{name}", type_=MESSAGES.c[name].type) for name in names}
    text = bindparam("new_content", type_=MESSAGES.c.content.type)
    return {True: rows.values(new), False: rows.values(new | {"content": text})}


_FINISH = {
    keeps: Prepared(statement)
    for keeps, statement in _ending(
        update(MESSAGES).where(
            MESSAGES.c.id == bindparam("reply_id"),
            MESSAGES.c.attempt == bindparam("this_attempt"),
            MESSAGES.c.status == Status.RUNNING.value,
        )
    ).items()
}
_FINISH_ORPHANS = _ending(
    update(MESSAGES).where(MESSAGES.c.status == Status.RUNNING.value, MESSAGES.c.instance_id.not_in(_ALIVE))
)

_ADD_INSTANCE = insert(INSTANCES)
_RENEW_INSTANCE = (
    update(INSTANCES).where(INSTANCES.c.id == bindparam("instance_id")).values(until=bindparam("new_until"))
)
_IS_ALIVE = _ALIVE.where(INSTANCES.c.id == bindparam("instance_id"))
_REMOVE_INSTANCE = delete(INSTANCES).where(INSTANCES.c.id == bindparam("instance_id"))
_PURGE_INSTANCES = delete(INSTANCES).where(INSTANCES.c.until < bindparam("before"))


class SqlSessions(Sessions):
    """The table `sessions`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, session: Session) -> None:
        """Store a new session."""
        await self._db.execute(_ADD_SESSION, session_values(session))

    async def get(self, session_id: str, user_id: str) -> Session:
        """Return a session of this user."""
        row = (await self._db.execute(_GET_SESSION, {"session_id": session_id, "owner_id": user_id})).first()
        if row is None:
            raise SessionNotFound
        return as_session(row)

    async def touch(self, session_id: str, user_id: str, at: datetime) -> None:
        """Count one more turn; the UPDATE locks the row until the unit ends."""
        known = {"session_id": session_id, "owner_id": user_id, "at": at}
        if not await _TOUCH_SESSION.change(self._db, known):
            raise SessionNotFound


class SqlTurns(Turns):
    """Pairs of rows in the table `messages`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, turn: Turn) -> None:
        """Store both rows in one statement: the drivers fold a list of rows into one INSERT."""
        try:
            await _ADD_TURN.change(self._db, *turn_values(turn))
        except IntegrityError as error:
            if is_duplicate(error, "user_id", "client_key"):
                raise Taken("the key has a turn") from error
            raise

    async def window(self, session_id: str, limit: int) -> Window:
        """Return count and turns; where none speaks, the count has to be asked for by itself."""
        rows = await _WINDOW.rows(self._db, {"session_id": session_id, "limit": limit})
        if not rows:
            return Window(accepted=await self._db.scalar(_COUNT, {"session_id": session_id}) or 0, turns=())
        return Window(accepted=rows[0][-1], turns=[as_turn(row[:-1]) for row in reversed(rows)])

    async def latest(self, session_id: str, limit: int) -> Sequence[Turn]:
        """Return the youngest turns, oldest first."""
        rows = (await self._db.execute(_LATEST, {"session_id": session_id, "limit": limit})).all()
        return [as_turn(row) for row in reversed(rows)]

    async def find(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply."""
        row = (await self._db.execute(_FIND_TURN, {"reply_id": reply_id, "owner_id": user_id})).first()
        return None if row is None else as_turn(row)

    async def find_settled(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply, once nobody else holds its row."""
        row = (await self._db.execute(_FIND_SETTLED_TURN, {"reply_id": reply_id, "owner_id": user_id})).first()
        return None if row is None else as_turn(row)

    async def find_by_key(self, key: str, user_id: str) -> Turn | None:
        """Return the turn of a key."""
        row = (await self._db.execute(_FIND_TURN_BY_KEY, {"key": key, "owner_id": user_id})).first()
        return None if row is None else as_turn(row)


class SqlReplies(Replies):
    """Replies' rows in the table `messages`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def finish(self, reply_id: str, attempt: int, end: End) -> bool:
        """Store an end, if the attempt still runs."""
        fence = {"reply_id": reply_id, "this_attempt": attempt}
        return bool(await _FINISH[end.content is None].change(self._db, fence | _end_values(end)))

    async def finish_orphans(self, now: datetime, end: End) -> int:
        """End what runs on instances that are not alive."""
        statement = _FINISH_ORPHANS[end.content is None]
        return (await self._db.execute(statement, {"now": now} | _end_values(end))).rowcount


class SqlInstances(Instances):
    """The table `instances`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def renew(self, instance_id: str, until: datetime) -> None:
        """Store a lease; only its owner does, so that no other can come between UPDATE and INSERT."""
        renewed = await self._db.execute(_RENEW_INSTANCE, {"instance_id": instance_id, "new_until": until})
        if not renewed.rowcount:
            await self._db.execute(_ADD_INSTANCE, {"id": instance_id, "until": until})

    async def is_alive(self, instance_id: str, now: datetime) -> bool:
        """Tell whether a lease lasts."""
        row = (await self._db.execute(_IS_ALIVE, {"instance_id": instance_id, "now": now})).first()
        return row is not None

    async def remove(self, instance_id: str) -> None:
        """Forget an instance."""
        await self._db.execute(_REMOVE_INSTANCE, {"instance_id": instance_id})

    async def purge(self, before: datetime) -> int:
        """Drop leases long over."""
        return (await self._db.execute(_PURGE_INSTANCES, {"before": before})).rowcount


def _end_values(end: End) -> dict[str, Any]:
    values = {
        "new_status": end.status.value,
        "new_finish_reason": end.finish_reason.value,
        "new_reason": end.reason,
        "new_model": end.model,
        "new_input_tokens": end.usage and end.usage.input_tokens,
        "new_output_tokens": end.usage and end.usage.output_tokens,
        "new_ended_at": end.at,
    }
    return values if end.content is None else values | {"new_content": end.content}
