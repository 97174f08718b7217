"""Turns in SQL. A turn is a row of `messages` for the question and one for each version of the reply."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    Select,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.failures import is_duplicate
from chatassist.adapters.persistence.mapping import (
    QUESTION_COLUMNS,
    REPLY_COLUMNS,
    as_turn,
    reply_values,
    turn_values,
)
from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.tables import DELETED, MESSAGES, QUESTION_VERSION, SESSIONS
from chatassist.domain.errors import MessageNotFound
from chatassist.domain.model import TitleSource
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import MAX_POSITION, Turns, Version, Window
from chatassist.domain.titles import first_words, preview_of
from chatassist.domain.turns import Exchange, FinishReason, Status, Turn

_PURGED_AT_ONCE = 1000

_QUESTION = MESSAGES.alias("question")
_REPLY = MESSAGES.alias("reply")
_IS_QUESTION = (
    (_QUESTION.c.session_id == _REPLY.c.session_id)
    & (_QUESTION.c.position == _REPLY.c.position)
    & (_QUESTION.c.version == QUESTION_VERSION)
)
_IS_KEPT = exists().where(SESSIONS.c.id == _REPLY.c.session_id, SESSIONS.c.deletion_id.is_(None))
_COLUMNS = (*(_QUESTION.c[name] for name in QUESTION_COLUMNS), *(_REPLY.c[name] for name in REPLY_COLUMNS))
_TURNS = select(*_COLUMNS).join_from(_REPLY, _QUESTION, _IS_QUESTION).where(_REPLY.c.version > QUESTION_VERSION)
_FIND_TURN = _TURNS.where(_REPLY.c.id == bindparam("reply_id"), _REPLY.c.user_id == bindparam("owner_id"), _IS_KEPT)
_FIND_SETTLED_TURN = _FIND_TURN.with_for_update()  # waits for an uncommitted insert; SQLite has one writer anyway
_BY_KEY = (_REPLY.c.client_key == bindparam("key")) & (_REPLY.c.user_id == bindparam("owner_id"))
_FIND_TURN_BY_KEY = (
    select(*_COLUMNS, _IS_KEPT.label("kept")).join_from(_REPLY, _QUESTION, _IS_QUESTION, isouter=True).where(_BY_KEY)
)
"""Without a question where only the key is left of a deleted turn; not kept where its session was deleted."""
_ADD_ROWS = Prepared(insert(MESSAGES), *MESSAGES.c.keys())


def _is_good(row: FromClause) -> ColumnElement[bool]:
    """Return what `Reply.good` says. The length, because MySQL holds a text of blanks to equal ''."""
    ended: list[ColumnElement[str]] = [
        literal_column(f"'{status.value}'") for status in (Status.COMPLETE, Status.STOPPED)
    ]
    return row.c.status.in_(ended) & (func.length(row.c.content) > 0)


def _youngest(turns: Select[Any]) -> Select[Any]:
    """Walk the unique index (session, position, version) from its end.

    Replies first: MySQL 9 would begin with the questions, and then sort the whole session.
    """
    return (
        turns.prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .where(_REPLY.c.session_id == bindparam("session_id"))
        .order_by(_REPLY.c.position.desc(), _REPLY.c.version.desc())
        .limit(bindparam("limit", type_=SESSIONS.c.turns.type))
    )


_OTHER = MESSAGES.alias("other")
_NEWER = _OTHER.c.version > _REPLY.c.version


def _of_the_same_turn(reply: FromClause, other: FromClause) -> ColumnElement[bool]:
    return (
        (other.c.session_id == reply.c.session_id)
        & (other.c.position == reply.c.position)
        & (other.c.version > QUESTION_VERSION)
    )


def is_shown(reply: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return whether a reply is the version that its turn shows, for lack of an `other` that comes before it."""
    newer = other.c.version > reply.c.version
    before = (_is_good(other) & ~_is_good(reply)) | (newer & (_is_good(other) | ~_is_good(reply)))
    return ~exists().where(_of_the_same_turn(reply, other), before)


SHOWN_TURNS = _TURNS.where(is_shown(_REPLY, _OTHER))
"""Turns in the version they show, read as `as_turn` wants them."""
SHOWN = _REPLY.c
"""The columns of the reply that such a turn shows."""
_LATEST = _youngest(SHOWN_TURNS)
_THE_SESSION = SESSIONS.c.id == bindparam("session_id")
_WINDOW = Prepared(
    _youngest(
        # No derived table: with its long texts MariaDB would write it to disk. The session's row is found by its id.
        select(SESSIONS.c.turns, SESSIONS.c.model, _REPLY.c.position, _QUESTION.c.content, _REPLY.c.content)
        .join_from(SESSIONS, _REPLY, _REPLY.c.session_id == SESSIONS.c.id)
        .join(_QUESTION, _IS_QUESTION)
        .where(
            _THE_SESSION,
            _REPLY.c.version > QUESTION_VERSION,
            _REPLY.c.position < bindparam("before", type_=MESSAGES.c.position.type),
            _is_good(_REPLY),
            func.coalesce(_REPLY.c.finish_reason, "") != FinishReason.BLOCKED.value,
            ~exists().where(_of_the_same_turn(_REPLY, _OTHER), _NEWER, _is_good(_OTHER)),
        )
    )
)
_EMPTY_WINDOW = Prepared(select(SESSIONS.c.turns, SESSIONS.c.model).where(_THE_SESSION))
_AT = (MESSAGES.c.session_id == bindparam("in_session"), MESSAGES.c.position == bindparam("at_position"))
_VERSIONS = (
    select(MESSAGES.c.id, MESSAGES.c.version, MESSAGES.c.status)
    .where(*_AT, MESSAGES.c.version > QUESTION_VERSION, MESSAGES.c.status != DELETED)
    .order_by(MESSAGES.c.version)
)
_LAST_POSITION = (
    select(MESSAGES.c.position)
    .where(MESSAGES.c.session_id == bindparam("session_id"), MESSAGES.c.version == QUESTION_VERSION)
    .order_by(MESSAGES.c.position.desc())
    .limit(1)
)
_FIRST_QUESTION = (
    select(MESSAGES.c.position, MESSAGES.c.content)
    .where(MESSAGES.c.session_id == bindparam("session_id"), MESSAGES.c.version == QUESTION_VERSION)
    .order_by(MESSAGES.c.position)
    .limit(1)
)
_ERASE = delete(MESSAGES).where(*_AT, MESSAGES.c.client_key.is_(None))
_EMPTIED = dict.fromkeys(
    ("instance_id", "requested_model", "finish_reason", "reason", "model", "input_tokens", "output_tokens",
     "usage_estimated", "thinking", "rating", "comment")
)  # fmt: skip
_EMPTY = update(MESSAGES).where(*_AT).values(_EMPTIED | {"content": "", "status": DELETED, "ended_at": bindparam("at")})
_TELL_SESSION = (
    update(SESSIONS)
    .where(SESSIONS.c.id == bindparam("in_session"))
    .values(
        listed_at=case(
            (SESSIONS.c.spoken | (SESSIONS.c.running > bindparam("running_less", type_=Integer)), SESSIONS.c.listed_at)
        ),
        running=SESSIONS.c.running - bindparam("running_less", type_=Integer),
        messages=SESSIONS.c.messages - 2,
        preview=bindparam("seen"),
    )
)
"""In this order: MySQL lets an expression see what was set before it."""
_RENAME_SESSION = (
    update(SESSIONS)
    .where(SESSIONS.c.id == bindparam("in_session"), SESSIONS.c.title_source != TitleSource.USER.value)
    .values(title=bindparam("words"), title_source=TitleSource.QUESTION.value)
)
_SPENT = (
    select(MESSAGES.c.id)
    .where(MESSAGES.c.status == DELETED, MESSAGES.c.ended_at < bindparam("before"))
    .limit(_PURGED_AT_ONCE)
)
_DROP_SPENT = delete(MESSAGES).where(MESSAGES.c.id.in_(bindparam("ids", expanding=True)))


class SqlTurns(Turns):
    """Pairs of rows in the table `messages`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, turn: Turn) -> None:
        """Store both rows in one statement: the drivers fold a list of rows into one INSERT."""
        await self._insert(turn_values(turn))

    async def add_version(self, turn: Turn) -> None:
        """Store the reply's row."""
        await self._insert([reply_values(turn)])

    async def _insert(self, rows: list[dict[str, Any]]) -> None:
        try:
            await _ADD_ROWS.change(self._db, *rows)
        except IntegrityError as error:
            if is_duplicate(error, "user_id", "client_key"):
                raise Taken("the key has a turn") from error
            raise

    async def window(self, session_id: str, limit: int, *, before: int = MAX_POSITION) -> Window:
        """Return what the session tells, and exchanges; where none speaks, the session has to be asked by itself."""
        sought = {"session_id": session_id, "limit": limit, "before": before}
        rows = await _WINDOW.rows(self._db, sought)
        if not rows:
            known = await _EMPTY_WINDOW.rows(self._db, {"session_id": session_id})
            accepted, model = known[0] if known else (0, None)
            return Window(accepted=accepted, exchanges=(), model=model)
        exchanges = [Exchange(position=at, question=said, answer=replied) for *_, at, said, replied in reversed(rows)]
        return Window(accepted=rows[0][0], exchanges=exchanges, model=rows[0][1])

    async def latest(self, session_id: str, limit: int) -> Sequence[Turn]:
        """Return the youngest turns, oldest first."""
        rows = (await self._db.execute(_LATEST, {"session_id": session_id, "limit": limit})).all()
        return [as_turn(row) for row in reversed(rows)]

    async def versions(self, session_id: str, position: int) -> Sequence[Version]:
        """Return the versions at a position."""
        rows = (await self._db.execute(_VERSIONS, {"in_session": session_id, "at_position": position})).all()
        return [Version(reply_id=reply_id, number=number, status=Status(status)) for reply_id, number, status in rows]

    async def last_position(self, session_id: str) -> int:
        """Return the youngest turn's position."""
        return await self._db.scalar(_LAST_POSITION, {"session_id": session_id}) or 0

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
        if row is None:
            return None
        *columns, kept = row
        if columns[0] is None or not kept:
            raise MessageNotFound
        return as_turn(columns)

    async def delete(self, session_id: str, position: int, at: datetime) -> int:
        """Erase what has no key, and empty what has one."""
        sought = {"in_session": session_id, "at_position": position}
        if not (versions := await self.versions(session_id, position)):
            return 0
        await self._db.execute(_ERASE, sought)
        await self._db.execute(_EMPTY, sought | {"at": at})
        latest = await self.latest(session_id, 1)
        lost = {"running_less": sum(version.status is Status.RUNNING for version in versions)}
        await self._db.execute(_TELL_SESSION, {"in_session": session_id, "seen": _preview(latest)} | lost)
        await self._rename_after(session_id, position)
        return len(versions) + 1

    async def _rename_after(self, session_id: str, position: int) -> None:
        """Let a session that lost its first turn be called after what is first now."""
        first = (await self._db.execute(_FIRST_QUESTION, {"session_id": session_id})).first()
        at, question = first or (MAX_POSITION, "")
        if position < at:
            await self._db.execute(_RENAME_SESSION, {"in_session": session_id, "words": first_words(question)})

    async def purge(self, before: datetime) -> int:
        """Drop spent keys by id: a DELETE by time would lock the rows it passes."""
        spent = (await self._db.execute(_SPENT, {"before": before})).scalars().all()
        return (await self._db.execute(_DROP_SPENT, {"ids": spent})).rowcount if spent else 0


def _preview(latest: Sequence[Turn]) -> str:
    return preview_of(latest[-1].reply.content or latest[-1].message.content) if latest else ""
