"""The rows as they lie in the database. The only room that knows SQLModel.

There are no foreign keys: every statement names its rows by id and owner already, and a foreign key would make each
new message take a shared lock on its session's row, which is the row that a claim holds.
"""

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Index,
    MetaData,
    String,
    Text,
    TextClause,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

QUESTION_VERSION = 0  # of a turn's rows, the user's message; replies count from 1
DELETED = "deleted"

# MySQL's default collations fold case, which would make one user of two openids.
_ON_MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_ID = String(32)
_CONTENT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql")  # 64,000 characters of 4 bytes do not fit TEXT's 65,535


def _from(default: str | TextClause) -> dict[str, Any]:
    """Let the database know what a column holds in rows that are older than it."""
    return {"server_default": default}


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
    revision: int = Field(sa_type=BigInteger, sa_column_kwargs=_from("0"))


class LoginRow(Row, table=True):
    """A sign-in that was not ended."""

    __tablename__ = "logins"
    __table_args__ = (Index(None, "user_id"), Index(None, "expires_at"), _ON_MYSQL)

    id: str = Field(sa_type=_ID, primary_key=True)
    user_id: str = Field(sa_type=_ID)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)


class SessionRow(Row, table=True):
    """A chat session. `listed_at` is `Session.listed_at`, kept because lists are read along its index."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index(None, "user_id", "pinned", "listed_at", "id"),
        Index(None, "user_id", "id"),  # an order that nothing changes, for whoever walks through all of them
        Index(None, "deletion_id"),
        _ON_MYSQL,
    )

    id: str = Field(sa_type=_ID, primary_key=True)
    user_id: str = Field(sa_type=_ID)
    turns: int
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    title: str = Field(sa_type=String(60), sa_column_kwargs=_from(text("''")))
    title_source: str = Field(sa_type=String(8), sa_column_kwargs=_from("question"))
    preview: str = Field(sa_type=String(100), sa_column_kwargs=_from(text("''")))
    pinned: bool = Field(sa_column_kwargs=_from("0"))
    messages: int = Field(sa_column_kwargs=_from("0"))
    running: int = Field(sa_column_kwargs=_from("0"))
    spoken: bool = Field(sa_column_kwargs=_from("0"))
    revision: int = Field(sa_type=BigInteger, sa_column_kwargs=_from("0"))
    deletion_id: str | None = Field(sa_type=_ID)
    listed_at: datetime | None = Field(sa_type=UtcDateTime)
    model: str | None = Field(sa_type=String(128))


class MessageRow(Row, table=True):
    """What the user said (version 0) or a reply to it (version 1 and on); the nullable columns are a reply's.

    Of a deleted turn only replies with a client key stay for a while, emptied, with status DELETED and no question.
    """

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("session_id", "position", "version"),
        UniqueConstraint("user_id", "client_key"),
        Index(None, "status", "instance_id"),
        Index(None, "user_id", "id"),  # what a user and his assistant said, newest last
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
    seq: int | None = Field(sa_type=BigInteger)  # a million for each attempt
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
    thinking: str | None = Field(sa_type=_CONTENT)
    rating: str | None = Field(sa_type=String(8))
    comment: str | None = Field(sa_type=String(500))
    usage_estimated: bool | None


class UsageRow(Row, table=True):
    """What a person used on a day; `subject` stands for the openid and outlives the account."""

    __tablename__ = "usage_days"
    __table_args__ = (_ON_MYSQL,)

    subject: str = Field(sa_type=String(64), primary_key=True)
    day: date = Field(primary_key=True)
    messages: int
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    audio_ms: int = Field(sa_type=BigInteger)


class DeletionRow(Row, table=True):
    """Sessions that were deleted together, and until when that can be undone; its id is the undo token."""

    __tablename__ = "deletions"
    __table_args__ = (Index(None, "user_id"), Index(None, "until"), _ON_MYSQL)

    id: str = Field(sa_type=_ID, primary_key=True)
    user_id: str = Field(sa_type=_ID)
    session_id: str | None = Field(sa_type=_ID)
    sessions: int
    messages: int
    until: datetime = Field(sa_type=UtcDateTime)


class ErasureRow(Row, table=True):
    """An account that was deleted, of which rows may be left."""

    __tablename__ = "erasures"
    __table_args__ = (_ON_MYSQL,)

    user_id: str = Field(sa_type=_ID, primary_key=True)
    created_at: datetime = Field(sa_type=UtcDateTime)


class JobRow(Row, table=True):
    """A periodic job, and the process that may do it until then."""

    __tablename__ = "jobs"
    __table_args__ = (_ON_MYSQL,)

    name: str = Field(sa_type=String(32), primary_key=True)
    owner: str = Field(sa_type=_ID)
    until: datetime = Field(sa_type=UtcDateTime)


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
USAGE_DAYS = Row.metadata.tables["usage_days"]
DELETIONS = Row.metadata.tables["deletions"]
ERASURES = Row.metadata.tables["erasures"]
JOBS = Row.metadata.tables["jobs"]
INSTANCES = Row.metadata.tables["instances"]
