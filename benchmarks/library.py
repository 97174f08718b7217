"""A library: somebody who said much, somebody who said little, and a crowd around them, in a MariaDB of its own.

The server makes the rows itself, out of numbers: a million come in half a minute. Turn `t` of all is the first one's
when six divides it, and the crowd's else, so that what one user said lies scattered among what others did.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import uuid_utils
from sqlalchemy import URL, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.script import TEXT
from benchmarks.world import SECRET
from chatassist.adapters.identity.jwt_tokens import JwtTokens
from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.mapping import login_values, session_values, turn_values, user_values
from chatassist.adapters.persistence.migrate import migrate
from chatassist.adapters.persistence.tables import LOGINS, MESSAGES, SESSIONS, USERS
from chatassist.domain.model import Login, Session, User
from chatassist.domain.turns import FinishReason, Message, Reply, Status, Turn, Usage

TURNS = 600_000
MUCH, LITTLE = 200_000, 100
"""Messages of the two."""
LONG = 10_000
"""Turns of the longest session; the other 9,999 share the rest."""
_BUFFER_POOL = 512 * 1024 * 1024  # what a server that holds this much would be given

_EPOCH = "'2026-01-01'"
_EPOCH_MS = 1_767_225_600_000
_QUESTION = "明天去杭州出差，要带伞吗？What should I wear, and is the train on time?"
_ANSWER = TEXT[:160]
_TITLE = "明天去杭州出差，要带伞吗？"


def _id(milliseconds: str, of: str) -> str:
    """Return what makes an id as ours are: the time first, then what tells it apart."""
    return f"lower(concat(lpad(hex({_EPOCH_MS} + {milliseconds}), 12, '0'), '7', substr(md5(concat({of})), 1, 19)))"


_USER, _SESSION = _id("0 - {0}", "'u', {0}"), _id("{0}", "'s', {0}")
_FILL_USERS = f"""
INSERT INTO users (id, openid, nickname, avatar, is_dark_mode, auto_read, save_history, blocked, created_at)
SELECT {_USER.format("seq")}, concat('library-', seq), '', '', 0, 0, 1, 0, {_EPOCH} FROM seq_0_to_1000
"""  # noqa: S608 - of constants alone
_FILL_SESSIONS = f"""
INSERT INTO sessions (id, user_id, turns, created_at, updated_at, listed_at, title, preview, messages, spoken)
SELECT {_SESSION.format("s")}, {_USER.format("owner")}, turns, {_EPOCH}, at, at, '{_TITLE}', '{_ANSWER[:100]}',
 2 * turns, 1
FROM (
 SELECT seq s, IF(seq < 10000, 0, 1 + seq % 1000) owner, {_EPOCH} + INTERVAL seq MINUTE at,
  CASE WHEN seq = 0 THEN {LONG} WHEN seq < 10 THEN 10 WHEN seq < 10000 THEN 9 ELSE 10 END turns
 FROM seq_0_to_59999
) numbered
"""  # noqa: S608 - of constants alone
_FILL_MESSAGES = f"""
INSERT INTO messages (id, session_id, user_id, position, version, content, created_at, attempt, seq, instance_id,
 status, finish_reason, model, input_tokens, output_tokens, ended_at)
SELECT {_id("t * 20000 + kind * 5000", "kind, ' ', t")}, {_SESSION.format("s")}, {_USER.format("owner")},
 position, kind,
 IF(kind, concat('{_ANSWER}', ' #', t), concat('{_QUESTION}', ' #', t)), {_EPOCH} + INTERVAL t * 20 SECOND,
 IF(kind, 0, NULL), IF(kind, 21, NULL), IF(kind, md5('library'), NULL), IF(kind, 'complete', NULL),
 IF(kind, 'stop', NULL), IF(kind, 'bench', NULL), IF(kind, 600, NULL), IF(kind, 300, NULL),
 IF(kind, {_EPOCH} + INTERVAL t * 20 + 5 SECOND, NULL)
FROM (
 SELECT t, IF(mine IS NULL, 1 + other % 1000, 0) owner,
  CASE WHEN mine IS NULL THEN 10000 + other % 50000 WHEN mine % 10 = 0 THEN 0 ELSE 1 + short % 9999 END s,
  CASE WHEN mine IS NULL THEN other div 50000 WHEN mine % 10 = 0 THEN mine div 10 ELSE short div 9999 END + 1 position
 FROM (
  SELECT seq t, IF(seq % 6 = 0, seq div 6, NULL) mine, seq - seq div 6 - 1 other, seq div 6 - seq div 60 - 1 short
  FROM seq_0_to_{TURNS - 1}
 ) numbered
) turns STRAIGHT_JOIN (SELECT seq kind FROM seq_0_to_1) kinds
"""  # noqa: S608 - of constants alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Somebody whose pages are measured: his token, and a session that has more than a page."""

    user_id: str
    token: str
    session_id: str


def filled(url: URL) -> tuple[Reader, Reader]:
    """Make the database, and return who said much and who said little."""
    asyncio.run(migrate(url))
    return asyncio.run(_fill(url))


async def _fill(url: URL) -> tuple[Reader, Reader]:
    engine = open_engine(url, pool_size=1)
    try:
        async with engine.connect() as db:
            # Into an empty table, and with nothing to check, InnoDB sorts the rows of all indexes at once.
            for setting in (
                f"GLOBAL innodb_buffer_pool_size = {_BUFFER_POOL}",
                "unique_checks = 0",
                "foreign_key_checks = 0",
            ):
                await db.exec_driver_sql(f"SET {setting}")
            for statement in (_FILL_USERS, _FILL_SESSIONS, _FILL_MESSAGES):
                await db.exec_driver_sql(statement.replace("%", "%%"))
            first = (await db.exec_driver_sql(f"SELECT {_USER.format(0)} u, {_SESSION.format(0)} s")).mappings().one()
            much = await _reader(db, first["u"], first["s"])
            little = await _add_little(db)
            await db.exec_driver_sql("ANALYZE TABLE users, sessions, messages")
            return much, little
    finally:
        await engine.dispose()


async def _add_little(db: AsyncConnection) -> Reader:
    """Keep 100 messages in 25 sessions: the first has 30 of them, so that both kinds of page are full."""
    now = datetime.now(UTC)
    user = User(id=_new_id(), openid="library-little", created_at=now)
    turns_of = [15, *([2] * 11), *([1] * 13)]
    sessions = [_session(user, number, turns, now) for number, turns in enumerate(turns_of)]
    turns = [_turn(session, position, now) for session in sessions for position in range(1, session.turns + 1)]
    assert 2 * len(turns) == LITTLE  # noqa: S101 - as announced
    await db.execute(insert(USERS), user_values(user))
    await db.execute(insert(SESSIONS), [session_values(session) for session in sessions])
    await db.execute(insert(MESSAGES), [row for turn in turns for row in turn_values(turn)])
    return await _reader(db, user.id, sessions[0].id)


async def _reader(db: AsyncConnection, user_id: str, session_id: str) -> Reader:
    now = datetime.now(UTC)
    login = Login(id=_new_id(), user_id=user_id, created_at=now, expires_at=now + timedelta(days=1))
    await db.execute(insert(LOGINS), login_values(login))
    return Reader(user_id=user_id, token=JwtTokens(lambda: now, secret=SECRET).issue(login), session_id=session_id)


def _session(user: User, number: int, turns: int, now: datetime) -> Session:
    return Session(
        id=_new_id(),
        user_id=user.id,
        turns=turns,
        messages=2 * turns,
        spoken=True,
        title=_TITLE,
        preview=_ANSWER[:100],
        created_at=now,
        updated_at=now + timedelta(seconds=number),
    )


def _turn(session: Session, position: int, now: datetime) -> Turn:
    said = Message(
        id=_new_id(),
        session_id=session.id,
        user_id=session.user_id,
        position=position,
        content=f"{_QUESTION} #{position}",
        created_at=now,
    )
    reply = Reply(
        id=_new_id(),
        instance_id=_new_id(),
        status=Status.COMPLETE,
        finish_reason=FinishReason.STOP,
        content=f"{_ANSWER} #{position}",
        model="bench",
        usage=Usage(input_tokens=600, output_tokens=300),
        created_at=now,
        ended_at=now,
    )
    return Turn(message=said, reply=reply)


def _new_id() -> str:
    return str(uuid_utils.uuid7().hex)
