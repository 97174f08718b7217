"""The rows as they lie in the database, and how each becomes a domain value. The only room that knows SQLModel.

There are no foreign keys: every statement names its rows by id and owner already, and a foreign key would make each
new message take a shared lock on its session's row, which is the row that a claim holds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Dialect, Index, MetaData, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

from chatassist.domain.model import Login, Preferences, Session, User
from chatassist.domain.turns import FinishReason, Message, Reply, Status, Turn, Usage

QUESTION_VERSION = 0  # of a turn's rows, the user's message; replies count from 1
FIRST_REPLY_VERSION = 1

# MySQL's default collations fold case, which would make one user of two openids.
_ON_MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_ID = String(32)
_CONTENT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql")  # 64,000 characters of 4 bytes do not fit TEXT's 65,535


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC with microseconds. Refuses naive ones, whose meaning depends on the machine."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Ask MySQL for microseconds: its plain DATETIME rounds to seconds, up into the future."""
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware datetime into UTC without an offset."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError("a stored datetime must be aware")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say of what was read that it is UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Row(SQLModel):
    """What all tables share: one catalogue, whose constraints get the same names in every database."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class UserRow(Row, table=True):
    """A person."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("openid"), _ON_MYSQL)

    id: str = Field(sa_type=_ID, primary_key=True)
    openid: str = Field(sa_type=String(128))
    nickname: str = Field(sa_type=String(32))
    avatar: str = Field(sa_type=String(512))
    is_dark_mode: bool
    auto_read: bool
    save_history: bool
    blocked: bool
    created_at: datetime = Field(sa_type=UtcDateTime)


class LoginRow(Row, table=True):
    """A sign-in that was not ended."""

    __tablename__ = "logins"
    __table_args__ = (Index(None, "user_id"), Index(None, "expires_at"), _ON_MYSQL)

    id: str = Field(sa_type=_ID, primary_key=True)
    user_id: str = Field(sa_type=_ID)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)


class SessionRow(Row, table=True):
    """A chat session."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "user_id", "updated_at"), _ON_MYSQL)

    id: str = Field(sa_type=_ID, primary_key=True)
    user_id: str = Field(sa_type=_ID)
    turns: int
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class MessageRow(Row, table=True):
    """What the user said (version 0) or a reply to it (version 1 and on); the nullable columns are a reply's."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("session_id", "position", "version"),
        UniqueConstraint("user_id", "client_key"),
        Index(None, "status", "instance_id"),
        _ON_MYSQL,
    )

    id: str = Field(sa_type=_ID, primary_key=True)
    session_id: str = Field(sa_type=_ID)
    user_id: str = Field(sa_type=_ID)
    position: int
    version: int
    content: str = Field(sa_type=_CONTENT)
    created_at: datetime = Field(sa_type=UtcDateTime)
    attempt: int | None
    instance_id: str | None = Field(sa_type=_ID)
    client_key: str | None = Field(sa_type=String(64))
    requested_model: str | None = Field(sa_type=String(128))
    status: str | None = Field(sa_type=String(16))
    finish_reason: str | None = Field(sa_type=String(16))
    reason: str | None = Field(sa_type=String(64))
    model: str | None = Field(sa_type=String(128))
    input_tokens: int | None
    output_tokens: int | None
    ended_at: datetime | None = Field(sa_type=UtcDateTime)


class InstanceRow(Row, table=True):
    """A process that produces replies."""

    __tablename__ = "instances"
    __table_args__ = (_ON_MYSQL,)

    id: str = Field(sa_type=_ID, primary_key=True)
    until: datetime = Field(sa_type=UtcDateTime)


USERS = Row.metadata.tables["users"]
LOGINS = Row.metadata.tables["logins"]
SESSIONS = Row.metadata.tables["sessions"]
MESSAGES = Row.metadata.tables["messages"]
INSTANCES = Row.metadata.tables["instances"]

# A turn is read as its question's first columns and then all of its reply's.
QUESTION_COLUMNS = ("id", "session_id", "user_id", "position", "content", "created_at")
REPLY_COLUMNS = (
    *("id", "attempt", "instance_id", "client_key", "requested_model", "status", "finish_reason", "reason"),
    *("content", "model", "input_tokens", "output_tokens", "created_at", "ended_at"),
)


def as_user(columns: Sequence[Any]) -> User:
    """Make a user of the columns of `users`, in their order."""
    user_id, openid, nickname, avatar, is_dark_mode, auto_read, save_history, blocked, created_at = columns
    return User(
        id=user_id,
        openid=openid,
        nickname=nickname,
        avatar=avatar,
        preferences=Preferences(is_dark_mode=is_dark_mode, auto_read=auto_read, save_history=save_history),
        blocked=blocked,
        created_at=created_at,
    )


def user_values(user: User) -> dict[str, Any]:
    """Return what is stored of a user, by column."""
    kept = user.preferences
    return {
        "id": user.id,
        "openid": user.openid,
        "nickname": user.nickname,
        "avatar": user.avatar,
        "is_dark_mode": kept.is_dark_mode,
        "auto_read": kept.auto_read,
        "save_history": kept.save_history,
        "blocked": user.blocked,
        "created_at": user.created_at,
    }


def as_login(columns: Sequence[Any]) -> Login:
    """Make a login of the columns of `logins`, in their order."""
    login_id, user_id, created_at, expires_at = columns
    return Login(id=login_id, user_id=user_id, created_at=created_at, expires_at=expires_at)


def login_values(login: Login) -> dict[str, Any]:
    """Return what is stored of a login, by column."""
    return {name: getattr(login, name) for name in LOGINS.c.keys()}  # noqa: SIM118 - not a dict


def as_session(columns: Sequence[Any]) -> Session:
    """Make a chat session of the columns of `sessions`, in their order."""
    session_id, user_id, turns, created_at, updated_at = columns
    return Session(id=session_id, user_id=user_id, turns=turns, created_at=created_at, updated_at=updated_at)


def session_values(session: Session) -> dict[str, Any]:
    """Return what is stored of a chat session, by column."""
    return {name: getattr(session, name) for name in SESSIONS.c.keys()}  # noqa: SIM118 - not a dict


def as_turn(columns: Sequence[Any]) -> Turn:
    """Make a turn of QUESTION_COLUMNS followed by REPLY_COLUMNS."""
    message_id, session_id, user_id, position, content, created_at = columns[: len(QUESTION_COLUMNS)]
    message = Message(
        id=message_id,
        session_id=session_id,
        user_id=user_id,
        position=position,
        content=content,
        created_at=created_at,
    )
    return Turn(message=message, reply=_as_reply(columns[len(QUESTION_COLUMNS) :]))


def _as_reply(columns: Sequence[Any]) -> Reply:
    reply_id, attempt, instance_id, key, requested, status, finish_reason, reason, *rest = columns
    content, model, input_tokens, output_tokens, created_at, ended_at = rest
    return Reply(
        id=reply_id,
        attempt=attempt,
        instance_id=instance_id,
        key=key,
        requested_model=requested,
        status=Status(status),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        reason=reason,
        content=content,
        model=model,
        usage=None if input_tokens is None else Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        created_at=created_at,
        ended_at=ended_at,
    )


def turn_values(turn: Turn) -> list[dict[str, Any]]:
    """Return what is stored of a turn, by column: the question's row, then the reply's."""
    said, reply = turn.message, turn.reply
    shared = {"session_id": said.session_id, "user_id": said.user_id, "position": said.position}
    usage = reply.usage
    answer = {
        "id": reply.id,
        "version": FIRST_REPLY_VERSION,
        "content": reply.content,
        "created_at": reply.created_at,
        "attempt": reply.attempt,
        "instance_id": reply.instance_id,
        "client_key": reply.key,
        "requested_model": reply.requested_model,
        "status": reply.status.value,
        "finish_reason": reply.finish_reason and reply.finish_reason.value,
        "reason": reply.reason,
        "model": reply.model,
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        "ended_at": reply.ended_at,
    }
    question = dict.fromkeys(answer) | {
        "id": said.id,
        "version": QUESTION_VERSION,
        "content": said.content,
        "created_at": said.created_at,
    }
    return [shared | question, shared | answer]
