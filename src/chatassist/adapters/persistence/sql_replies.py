"""The running side of turns in SQL: replies and the instances that produce them. Every change of a reply is fenced."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import bindparam, case, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.sql_people import OF_METER, SqlUsages, meter_values
from chatassist.adapters.persistence.tables import DELETED, INSTANCES, MESSAGES, SESSIONS, USAGE_DAYS, USERS
from chatassist.adapters.persistence.together import Together
from chatassist.domain.ports.persistence import Instances, Replies
from chatassist.domain.titles import preview_of
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT, End, Feedback, Saved, Status
from chatassist.domain.usage import Meter, Used

_SAVED_AT_ONCE = 50  # texts in one statement
_SAVED_CHARS = 400_000  # and with these it is full: at 4 bytes each, below the smallest packet limit (MySQL 5.7: 4 MiB)

_ALIVE = select(INSTANCES.c.id).where(INSTANCES.c.until > bindparam("now"))
_ENDED = (
    *("status", "finish_reason", "reason", "model", "input_tokens", "output_tokens", "usage_estimated"),
    "ended_at",
)
_TEXTS = ("content", "thinking")


def _new(*names: str) -> dict[str, Any]:
    return {name: bindparam(f"new_{name}", type_=MESSAGES.c[name].type) for name in names}


_THIS = (MESSAGES.c.id == bindparam("reply_id")) & (MESSAGES.c.attempt == bindparam("this_attempt"))
_ATTEMPT = update(MESSAGES).where(_THIS)
_RUNNING = MESSAGES.c.status == Status.RUNNING.value


def _finish(*, keeps: bool, meters: bool) -> Together:
    """Return the statement that ends an attempt. `keeps`: the texts stay as stored; `meters`: a day counts tokens."""
    fine = bindparam("fine", type_=SESSIONS.c.spoken.type)
    good = fine & (func.length(MESSAGES.c.content) > 0) if keeps else fine
    listed = case(
        (
            SESSIONS.c.deletion_id.is_(None) & (SESSIONS.c.spoken | (SESSIONS.c.running > 1) | good),
            SESSIONS.c.updated_at,
        )
    )
    newest = MESSAGES.c.position == SESSIONS.c.turns
    session = {
        SESSIONS.c.listed_at: listed,
        SESSIONS.c.running: SESSIONS.c.running - 1,
        SESSIONS.c.spoken: SESSIONS.c.spoken | good,
        SESSIONS.c.preview: case((newest & (func.length(_SEEN) > 0), _SEEN), else_=SESSIONS.c.preview),
        SESSIONS.c.revision: SESSIONS.c.revision + 1,
    }
    usage = {column: column + bindparam(f"more_{column.name}", type_=column.type) for column in _TOKENS}
    linked = (
        (SESSIONS, SESSIONS.c.id == MESSAGES.c.session_id, session),
        (USERS, USERS.c.id == MESSAGES.c.user_id, {USERS.c.revision: USERS.c.revision + 1}),
        *([(USAGE_DAYS, OF_METER, usage)] if meters else []),
    )
    new = _new(*_ENDED, "seq", *(() if keeps else _TEXTS))
    return Together(MESSAGES, _THIS, _RUNNING, {MESSAGES.c[name]: value for name, value in new.items()}, *linked)


_SEEN = bindparam("seen", type_=SESSIONS.c.preview.type)
_TOKENS = (USAGE_DAYS.c.input_tokens, USAGE_DAYS.c.output_tokens)
_FINISH = {(keeps, meters): _finish(keeps=keeps, meters=meters) for keeps in (True, False) for meters in (True, False)}
_ORPHANS = select(MESSAGES.c.id, MESSAGES.c.attempt).where(_RUNNING, MESSAGES.c.instance_id.not_in(_ALIVE)).limit(1000)
_RESTART = _ATTEMPT.where(MESSAGES.c.status == Status.FAILED.value).values(
    dict.fromkeys((*_ENDED, "thinking")) | {"content": "", "status": Status.RUNNING.value}
    | _new("attempt", "seq", "instance_id")
)  # fmt: skip
_LIST_RUNNING = Prepared(select(MESSAGES.c.id).where(_RUNNING, MESSAGES.c.instance_id == bindparam("instance_id")))
_RATE = (
    update(MESSAGES)
    .where(MESSAGES.c.id == bindparam("reply_id"), MESSAGES.c.status != DELETED)
    .values(_new("rating", "comment"))
)

_ADD_INSTANCE = insert(INSTANCES)
_RENEW_INSTANCE = (
    update(INSTANCES).where(INSTANCES.c.id == bindparam("instance_id")).values(until=bindparam("new_until"))
)
_IS_ALIVE = _ALIVE.where(INSTANCES.c.id == bindparam("instance_id"))
_REMOVE_INSTANCE = delete(INSTANCES).where(INSTANCES.c.id == bindparam("instance_id"))
_PURGE_INSTANCES = delete(INSTANCES).where(INSTANCES.c.until < bindparam("before"))


@cache
def _save(rows: int) -> Prepared:
    """Return the statement that saves so many texts: a text saved alone costs a hundred times its share in here."""
    numbers = range(rows)

    def case(column: str) -> str:
        return "CASE id " + " ".join(f"WHEN :id{n} THEN :{column}{n}" for n in numbers) + " END"

    columns = ", ".join(f"{column} = {case(column)}" for column in ("content", "thinking", "seq"))
    ids = ", ".join(f":id{n}" for n in numbers)
    statement = (
        f"UPDATE messages SET {columns}"  # noqa: S608 - of names and numbers alone
        f" WHERE id IN ({ids}) AND status = 'running' AND attempt = {case('attempt')}"
    )
    return Prepared(text(statement))


def _portions(texts: Sequence[Saved]) -> Iterator[Sequence[Saved]]:
    """Cut texts into what one statement takes."""
    some: list[Saved] = []
    chars = 0
    for one in texts:
        some.append(one)
        chars += len(one.content) + len(one.thinking)
        if len(some) == _SAVED_AT_ONCE or chars >= _SAVED_CHARS:
            yield some
            some, chars = [], 0
    if some:
        yield some


class SqlReplies(Replies):
    """Replies' rows in the table `messages`."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def finish(self, reply_id: str, attempt: int, end: End, *, meter: Meter | None = None) -> bool:
        """Store an end, if the attempt still runs."""
        seq = (attempt + 1) * NUMBERS_PER_ATTEMPT if end.seq is None else end.seq
        values = {"reply_id": reply_id, "this_attempt": attempt, "new_seq": seq} | _end_values(end)
        keeps = end.content is None
        if end.content is not None:
            values |= {"new_content": end.content, "new_thinking": end.thinking or None}
        if meter is None or end.usage is None:
            return await _FINISH[keeps, False].change(self._db, values)
        used = Used(input_tokens=end.usage.input_tokens, output_tokens=end.usage.output_tokens)
        if self._db.dialect.name == "mysql":
            spent = {"more_input_tokens": used.input_tokens, "more_output_tokens": used.output_tokens}
            if await _FINISH[keeps, True].change(self._db, values | spent | meter_values(meter)):
                return True  # else it may be the day that is missing
        ended = await _FINISH[keeps, False].change(self._db, values)
        if ended:
            await SqlUsages(self._db).count(meter, used)
        return ended

    async def restart(self, reply_id: str, attempt: int, instance_id: str) -> bool:
        """Begin the next attempt, if this one failed."""
        known = {"reply_id": reply_id, "this_attempt": attempt}
        new = {
            "new_attempt": attempt + 1,
            "new_seq": (attempt + 1) * NUMBERS_PER_ATTEMPT,
            "new_instance_id": instance_id,
        }
        return bool((await self._db.execute(_RESTART, known | new)).rowcount)

    async def save(self, texts: Sequence[Saved]) -> None:
        """Store texts of attempts that still run, many in one statement."""
        for some in _portions(texts):
            values: dict[str, Any] = {}
            for number, one in enumerate(some):
                values |= {f"id{number}": one.reply_id, f"attempt{number}": one.attempt, f"seq{number}": one.seq}
                values |= {f"content{number}": one.content, f"thinking{number}": one.thinking or None}
            await _save(len(some)).change(self._db, values)

    async def running(self, instance_id: str) -> Collection[str]:
        """Return what runs under an instance, from the index alone."""
        return {reply_id for (reply_id,) in await _LIST_RUNNING.rows(self._db, {"instance_id": instance_id})}

    async def rate(self, reply_id: str, feedback: Feedback | None) -> None:
        """Store feedback."""
        rating, comment = (feedback.rating.value, feedback.comment) if feedback else (None, None)
        await self._db.execute(_RATE, {"reply_id": reply_id, "new_rating": rating, "new_comment": comment})

    async def finish_orphans(self, now: datetime, end: End) -> int:
        """End what runs on instances that are not alive."""
        orphans = (await self._db.execute(_ORPHANS, {"now": now})).all()
        kept = replace(end, content=None, seq=None)
        return sum([await self.finish(reply_id, attempt, kept) for reply_id, attempt in orphans])


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
    """Return an end by parameter. `fine`: whether it is a good one (`Reply.good`), if there is a text to it."""
    fine = end.status in (Status.COMPLETE, Status.STOPPED) and end.content != ""
    return {
        "new_status": end.status.value,
        "new_finish_reason": end.finish_reason.value,
        "new_reason": end.reason,
        "new_model": end.model,
        "new_input_tokens": end.usage and end.usage.input_tokens,
        "new_output_tokens": end.usage and end.usage.output_tokens,
        "new_usage_estimated": end.usage and end.usage.estimated,
        "new_ended_at": end.at,
        "fine": fine,
        "seen": preview_of(end.content or "") if fine else "",
    }
