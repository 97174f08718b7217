"""What the floor says to its database: the statements of a turn by hand, with only the columns that a turn needs.

The drivers are used bare. The pool is some connections and a semaphore: no ping, no reset, no recycling.
"""

from abc import ABC, abstractmethod
from asyncio import Lock, Semaphore
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiosqlite
import asyncmy
from sqlalchemy import URL

from chatassist.domain.titles import preview_of

LOGIN = (
    "SELECT l.id, u.id, u.openid, u.blocked, u.save_history FROM logins l JOIN users u ON u.id = l.user_id"
    " WHERE l.id = ?"
)
TOUCH = (
    "UPDATE sessions SET turns = turns + 1, messages = messages + 2, running = running + 1, updated_at = ?,"
    " listed_at = ?, preview = ?, revision = revision + 1 WHERE id = ? AND user_id = ? AND deletion_id IS NULL"
)
REVISE = "UPDATE users SET revision = revision + 1 WHERE id = ?"
TOUCH_AT_ONCE = (  # what MariaDB does in one round trip
    "UPDATE sessions s, users u, usage_days d SET s.turns = s.turns + 1, s.messages = s.messages + 2,"
    " s.running = s.running + 1, s.updated_at = ?, s.listed_at = ?, s.preview = ?, s.revision = s.revision + 1,"
    " u.revision = u.revision + 1, d.messages = d.messages + 1"
    " WHERE s.id = ? AND s.user_id = ? AND s.deletion_id IS NULL AND u.id = s.user_id AND d.subject = ? AND d.day = ?"
)
WINDOW = (  # no derived table: with texts in it, MariaDB would write one to disk for every claim
    "SELECT s.turns, s.model, q.content, r.content FROM sessions s JOIN messages r ON r.session_id = s.id"
    " JOIN messages q ON q.session_id = r.session_id AND q.position = r.position AND q.version = 0"
    " WHERE s.id = ? AND r.version > 0 AND r.session_id = ? AND r.status IN ('complete', 'stopped')"
    " AND length(r.content) > 0 AND coalesce(r.finish_reason, '') <> 'blocked'"
    " ORDER BY r.position DESC, r.version DESC LIMIT 50"
)
FIRST = "SELECT turns, model FROM sessions WHERE id = ?"  # where the window is empty
ADD_TURN = (
    "INSERT INTO messages (id, session_id, user_id, position, version, content, created_at, attempt, instance_id,"
    " status) VALUES (?, ?, ?, ?, 0, ?, ?, NULL, NULL, NULL), (?, ?, ?, ?, 1, '', ?, 0, ?, 'running')"
)
COUNT = "UPDATE usage_days SET messages = messages + 1 WHERE subject = ? AND day = ?"
FINISH = (
    "UPDATE messages SET status = 'complete', finish_reason = ?, content = ?, model = ?, input_tokens = ?,"
    " output_tokens = ?, usage_estimated = 0, ended_at = ?, seq = ? WHERE id = ? AND attempt = 0 AND status = 'running'"
)
SHOW = (  # the reply is good, so its session is listed unless it was deleted
    "UPDATE sessions SET running = running - 1, spoken = 1, preview = ?, revision = revision + 1,"
    " listed_at = CASE WHEN deletion_id IS NULL THEN updated_at END WHERE id = ?"
)
SPEND = (
    "UPDATE usage_days SET input_tokens = input_tokens + ?, output_tokens = output_tokens + ?"
    " WHERE subject = ? AND day = ?"
)
FINISH_AT_ONCE = (
    "UPDATE messages m, sessions s, users u, usage_days d SET m.status = 'complete', m.finish_reason = ?,"
    " m.content = ?, m.model = ?, m.input_tokens = ?, m.output_tokens = ?, m.usage_estimated = 0, m.ended_at = ?,"
    " m.seq = ?,"
    " s.running = s.running - 1, s.spoken = 1, s.preview = ?, s.revision = s.revision + 1,"
    " s.listed_at = CASE WHEN s.deletion_id IS NULL THEN s.updated_at END, u.revision = u.revision + 1,"
    " d.input_tokens = d.input_tokens + ?, d.output_tokens = d.output_tokens + ?"
    " WHERE m.id = ? AND m.attempt = 0 AND m.status = 'running' AND s.id = m.session_id AND u.id = m.user_id"
    " AND d.subject = ? AND d.day = ?"
)
BE_ALIVE = "INSERT INTO instances (id, until) VALUES (?, '2099-01-01 00:00:00.000000')"

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question about to be claimed; times are what the database takes, in UTC."""

    user_id: str
    session_id: str
    message_id: str
    reply_id: str
    instance_id: str
    text: str
    at: str
    subject: str
    day: str
    """By which two the day's use is found."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a reply ended."""

    finish: str
    text: str
    model: str
    tokens: tuple[int, int]
    at: str
    seq: int


class FloorStore(ABC):
    """The three visits that a turn pays to its database."""

    @abstractmethod
    async def open(self, instance_id: str) -> None:
        """Connect, and let nobody take the floor's running replies for orphans."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def login(self, login_id: str) -> Sequence[Any] | None:
        """Return the columns of LOGIN."""

    @abstractmethod
    async def claim(self, ask: Ask) -> Rows:
        """Store question and running reply; return what WINDOW finds before them, the youngest first.

        Raises LookupError where the user has no such session.
        """

    @abstractmethod
    async def finish(self, ask: Ask, said: Said) -> bool:
        """Store an end, and what session, user and day show of it; False if the reply was not running any more."""


def open_store(url: URL, connections: int) -> FloorStore:
    """Return the store for a database URL; `connections`: the size of its pool, which SQLite has none of."""
    return SqliteStore(url) if url.get_backend_name() == "sqlite" else MariaDbStore(url, connections)


def _turn(ask: Ask, position: int) -> Sequence[Any]:
    shared = (ask.session_id, ask.user_id, position)
    return (ask.message_id, *shared, ask.text, ask.at, ask.reply_id, *shared, ask.at, ask.instance_id)


def _touched(ask: Ask) -> Sequence[Any]:
    return ask.at, ask.at, preview_of(ask.text), ask.session_id, ask.user_id


def _ended(said: Said) -> Sequence[Any]:
    return said.finish, said.text, said.model, *said.tokens, said.at, said.seq


@cache
def _for_mysql(statement: str) -> str:
    return statement.replace("?", "%s")


class MariaDbStore(FloorStore):
    """On asyncmy, in autocommit; a claim says BEGIN and COMMIT."""

    def __init__(self, url: URL, connections: int) -> None:
        self._url = url
        self._size = connections
        self._free = Semaphore(connections)
        self._idle: list[Any] = []

    async def open(self, instance_id: str) -> None:
        """Open all connections at once."""
        url = self._url
        for _ in range(self._size):
            connection = await asyncmy.connect(
                host=url.host, port=url.port, user=url.username, password=url.password, db=url.database,
                charset="utf8mb4", autocommit=True,
                init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            )  # fmt: skip
            self._idle.append(connection)
        await self._run(BE_ALIVE, (instance_id,))

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            await connection.ensure_closed()

    async def login(self, login_id: str) -> Sequence[Any] | None:
        """Read the row."""
        rows, _ = await self._run(LOGIN, (login_id,))
        return rows[0] if rows else None

    async def finish(self, ask: Ask, said: Said) -> bool:
        """Update the rows; a single statement needs no BEGIN, and is repeated after a deadlock (1213) of indexes."""
        values = (*_ended(said), preview_of(said.text), *said.tokens, ask.reply_id, ask.subject, ask.day)
        try:
            _, found = await self._run(FINISH_AT_ONCE, values)
        except asyncmy.errors.OperationalError as error:
            if error.args[0] != 1213:
                raise
            _, found = await self._run(FINISH_AT_ONCE, values)
        return found > 0

    async def claim(self, ask: Ask) -> Rows:
        """Touch and count, read, insert; the touched row serialises the claims of a session."""
        async with self._free:
            connection = self._idle.pop()  # not put back when something breaks: the run has failed then
            cursor = connection.cursor()
            await cursor.execute("BEGIN")
            if not await cursor.execute(_for_mysql(TOUCH_AT_ONCE), (*_touched(ask), ask.subject, ask.day)):
                raise LookupError
            await cursor.execute(_for_mysql(WINDOW), (ask.session_id, ask.session_id))
            window: Rows = await cursor.fetchall()
            if not window:
                await cursor.execute(_for_mysql(FIRST), (ask.session_id,))
            position = (window or await cursor.fetchall())[0][0]
            await cursor.execute(_for_mysql(ADD_TURN), _turn(ask, position))
            await cursor.execute("COMMIT")
            self._idle.append(connection)
        return window

    async def _run(self, statement: str, values: Sequence[Any]) -> tuple[Rows, int]:
        async with self._free:
            connection = self._idle.pop()
            try:
                cursor = connection.cursor()
                count = await cursor.execute(_for_mysql(statement), values)
                rows: Rows = await cursor.fetchall()
            finally:
                self._idle.append(connection)
        return rows, count


class SqliteStore(FloorStore):
    """On aiosqlite: one connection that reads, one that writes, each a thread."""

    def __init__(self, url: URL) -> None:
        self._file = url.database or ""
        self._writing = Lock()

    async def open(self, instance_id: str) -> None:
        """Open both connections, as safe and as fast as the service's."""
        self._reader = await aiosqlite.connect(self._file, isolation_level=None)
        self._writer = await aiosqlite.connect(self._file, isolation_level=None)
        for connection in (self._reader, self._writer):
            for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = NORMAL"):
                await connection.execute(f"PRAGMA {pragma}")
        await self._writer.execute(BE_ALIVE, (instance_id,))

    async def close(self) -> None:
        """Close both connections."""
        await self._reader.close()
        await self._writer.close()

    async def login(self, login_id: str) -> Sequence[Any] | None:
        """Read the row."""
        rows = list(await self._reader.execute_fetchall(LOGIN, (login_id,)))
        return rows[0] if rows else None

    async def finish(self, ask: Ask, said: Said) -> bool:
        """Update one row after the other: SQLite has no statement for several tables."""
        writer = self._writer
        async with self._writing:
            await writer.execute("BEGIN IMMEDIATE")
            found = (await writer.execute(FINISH, (*_ended(said), ask.reply_id))).rowcount
            if found:
                await writer.execute(SHOW, (preview_of(said.text), ask.session_id))
                await writer.execute(REVISE, (ask.user_id,))
                await writer.execute(SPEND, (*said.tokens, ask.subject, ask.day))
            await writer.execute("COMMIT")
        return found > 0

    async def claim(self, ask: Ask) -> Rows:
        """Touch, read, insert, count, under the lock that SQLite has only one of."""
        writer = self._writer
        async with self._writing:
            await writer.execute("BEGIN IMMEDIATE")
            if not (await writer.execute(TOUCH, _touched(ask))).rowcount:
                raise LookupError
            await writer.execute(REVISE, (ask.user_id,))
            window = list(await writer.execute_fetchall(WINDOW, (ask.session_id, ask.session_id)))
            first = window or list(await writer.execute_fetchall(FIRST, (ask.session_id,)))
            await writer.execute(ADD_TURN, _turn(ask, first[0][0]))
            if not (await writer.execute(COUNT, (ask.subject, ask.day))).rowcount:
                raise LookupError
            await writer.execute("COMMIT")
        return window
