"""The running side of turns in SQL: replies and the instances that produce them. Every change of a reply is fenced."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.prepared import Prepared
from chatassist.adapters.persistence.tables import DELETED, INSTANCES, MESSAGES
from chatassist.domain.ports.persistence import Instances, Replies
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT, End, Feedback, Saved, Status

_SAVED_AT_ONCE = 50  # texts in one statement
_SAVED_CHARS = 400_000  # and with these it is full: at 4 bytes each, below the smallest packet limit (MySQL 5.7: 4 MiB)

_ALIVE = select(INSTANCES.c.id).where(INSTANCES.c.until > bindparam("now"))
_ENDED = ("status", "finish_reason", "reason", "model", "input_tokens", "output_tokens", "ended_at")
_TEXTS = ("content", "thinking")


def _new(*names: str) -> dict[str, Any]:
    return {name: bindparam(f"new_{name}", type_=MESSAGES.c[name].type) for name in names}


_ATTEMPT = update(MESSAGES).where(
    MESSAGES.c.id == bindparam("reply_id"), MESSAGES.c.attempt == bindparam("this_attempt")
)
_RUNNING = MESSAGES.c.status == Status.RUNNING.value
_FINISH = {
    keeps: Prepared(_ATTEMPT.where(_RUNNING).values(_new(*_ENDED, "seq", *(() if keeps else _TEXTS))))
    for keeps in (True, False)
}
"""[True] keeps the stored texts, [False] replaces them."""
_FINISH_ORPHANS = (
    update(MESSAGES)
    .where(_RUNNING, MESSAGES.c.instance_id.not_in(_ALIVE))
    .values(_new(*_ENDED) | {"seq": (MESSAGES.c.attempt + 1) * NUMBERS_PER_ATTEMPT})
)
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

    async def finish(self, reply_id: str, attempt: int, end: End) -> bool:
        """Store an end, if the attempt still runs."""
        seq = (attempt + 1) * NUMBERS_PER_ATTEMPT if end.seq is None else end.seq
        values = {"reply_id": reply_id, "this_attempt": attempt, "new_seq": seq} | _end_values(end)
        if end.content is not None:
            values |= {"new_content": end.content, "new_thinking": end.thinking or None}
        return bool(await _FINISH[end.content is None].change(self._db, values))

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
        return (await self._db.execute(_FINISH_ORPHANS, {"now": now} | _end_values(end))).rowcount


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
    return {
        "new_status": end.status.value,
        "new_finish_reason": end.finish_reason.value,
        "new_reason": end.reason,
        "new_model": end.model,
        "new_input_tokens": end.usage and end.usage.input_tokens,
        "new_output_tokens": end.usage and end.usage.output_tokens,
        "new_ended_at": end.at,
    }
