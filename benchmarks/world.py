"""The databases that service and floor share: migrated by our code, filled with logins, sessions and history.

Every seat is a user with a login and a session of its own, so that no row lock is the bottleneck.
"""

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uuid_utils
from sqlalchemy import URL, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.script import DAY_ZONE, TEXT
from chatassist.adapters.identity.jwt_tokens import JwtTokens
from chatassist.adapters.identity.pseudonym import pseudonyms
from chatassist.adapters.persistence.engine import database_url, open_engine
from chatassist.adapters.persistence.mapping import login_values, session_values, turn_values, user_values
from chatassist.adapters.persistence.migrate import migrate
from chatassist.adapters.persistence.tables import LOGINS, MESSAGES, SESSIONS, USAGE_DAYS, USERS
from chatassist.domain.model import Login, Session, User
from chatassist.domain.turns import FinishReason, Message, Reply, Status, Turn, Usage
from tests.fixtures.mariadb import MariaDbServer, install, installed
from tests.fixtures.redis import RedisServer

SEATS = 1024
TURNS = 10  # of history, so that a prompt has 20 messages before the question
SECRET = "Zq3vN8yTb1Wk6RjXc0LmHs5DfGp9AeUo2iYx7BtVnKd"  # noqa: S105 - a benchmark's own
_QUESTION = "明天去杭州出差，要带伞吗？What should I wear, and is the train on time?"
_ANSWER = TEXT[:160]
_AT_ONCE = 64  # seats whose rows go in together


@contextmanager
def prepared(kind: str, folder: Path, *, seats: int = SEATS) -> Iterator[tuple[URL, Path]]:
    """Give the URL of a filled database, "mariadb" or "sqlite", and the file of seats for the load.

    A private MariaDB is started and ended. Raises RuntimeError where none is installed.
    """
    if kind == "sqlite":
        url = database_url(f"sqlite+aiosqlite:///{folder / 'bench.sqlite3'}")
        yield url, _fill(url, folder / "sqlite-seats.json", seats)
        return
    if not installed():
        raise RuntimeError("no mariadbd here (apt install mariadb-server); try --database sqlite")
    data = folder / "mariadb"
    shutil.move(install(folder), data)
    os.environ["TMPDIR"] = str(folder)  # a MariaDB that starts deletes every temporary table that it finds in its own
    server = MariaDbServer(data)
    server.start()
    try:
        url = database_url(f"{server.url}/bench")
        yield url, _fill(url, folder / "mariadb-seats.json", seats)
    finally:
        server.stop()


@contextmanager
def started_redis(folder: Path) -> Iterator[str | None]:
    """Give the URL of a private Redis, which is ended afterwards; None where none is installed."""
    if not shutil.which("redis-server"):
        yield None
        return
    data = folder / "redis"
    data.mkdir()
    server = RedisServer(data)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rewind(url: URL) -> None:
    """Take out what was said since `prepared`: every turn is to find the same history.

    Positions go on where they were: a row under a key that was just deleted waits for InnoDB's purge, or deadlocks.
    """

    async def work(db: AsyncConnection) -> None:
        await db.execute(text("DELETE FROM messages WHERE position > :turns"), {"turns": TURNS})

    asyncio.run(_with(url, work))


def _fill(url: URL, file: Path, seats: int) -> Path:
    """Migrate, store the rows of every seat, and write tokens and sessions to `file`."""
    now = datetime.now(UTC)
    tokens = JwtTokens(lambda: now, secret=SECRET)
    taken: list[tuple[str, str]] = []

    async def work(db: AsyncConnection) -> None:
        for start in range(0, seats, _AT_ONCE):
            rows: dict[str, list[dict[str, Any]]] = {}
            for _ in range(start, min(start + _AT_ONCE, seats)):
                login, session_id, made = _seat(now)
                taken.append((tokens.issue(login), session_id))
                for table, more in made.items():
                    rows.setdefault(table, []).extend(more)
            for kept in (USERS, LOGINS, SESSIONS, USAGE_DAYS, MESSAGES):
                await db.execute(insert(kept), rows[kept.name])

    asyncio.run(migrate(url))
    asyncio.run(_with(url, work))
    file.write_text(json.dumps(taken))
    return file


def _seat(now: datetime) -> tuple[Login, str, dict[str, list[dict[str, Any]]]]:
    """Return a login, a session's id, and the rows of both, by table."""
    user = User(id=_id(), openid=f"bench-{_id()}", created_at=now)
    login = Login(id=_id(), user_id=user.id, created_at=now, expires_at=now + timedelta(days=1))
    session = Session(
        id=_id(),
        user_id=user.id,
        turns=TURNS,
        messages=2 * TURNS,
        spoken=True,
        created_at=now,
        updated_at=now,
        title="明天去杭州出差，要带伞吗？",
    )
    rows = {
        "users": [user_values(user)],
        "logins": [login_values(login)],
        "sessions": [session_values(session)],
        "usage_days": _days(user, now),
        "messages": [row for number in range(TURNS) for row in turn_values(_turn(session, number + 1, now))],
    }
    return login, session.id, rows


def _days(user: User, now: datetime) -> list[dict[str, Any]]:
    """Return rows that count the user's use: of today, and of tomorrow for a run at midnight."""
    subject, today = pseudonyms(SECRET)(user.openid), now.astimezone(DAY_ZONE).date()
    nothing = {"messages": 0, "input_tokens": 0, "output_tokens": 0, "audio_ms": 0}
    return [{"subject": subject, "day": today + timedelta(days=more), **nothing} for more in (0, 1)]


def _turn(session: Session, position: int, now: datetime) -> Turn:
    message = Message(
        id=_id(),
        session_id=session.id,
        user_id=session.user_id,
        position=position,
        content=_QUESTION,
        created_at=now,
    )
    reply = Reply(
        id=_id(),
        instance_id=_id(),
        status=Status.COMPLETE,
        finish_reason=FinishReason.STOP,
        content=_ANSWER,
        model="bench",
        usage=Usage(input_tokens=500, output_tokens=120),
        created_at=now,
        ended_at=now,
    )
    return Turn(message=message, reply=reply)


async def _with(url: URL, work: Any) -> None:
    """Run `work` in one transaction on a connection of its own."""
    engine = open_engine(url, pool_size=1)
    try:
        async with engine.connect() as db:
            await db.exec_driver_sql("BEGIN")
            await work(db)
            await db.exec_driver_sql("COMMIT")
    finally:
        await engine.dispose()


def _id() -> str:
    return str(uuid_utils.uuid7().hex)
