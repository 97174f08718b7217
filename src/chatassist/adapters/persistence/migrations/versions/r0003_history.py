"""Sessions that can be listed, searched, deleted and restored; what is used by day; who does which job."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ON_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
ID = sa.String(32)

OF_USERS: sa.Column[Any] = sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0")
OF_SESSIONS: tuple[sa.Column[Any], ...] = (
    sa.Column("title", sa.String(60), nullable=False, server_default=""),
    sa.Column("title_source", sa.String(8), nullable=False, server_default="question"),
    sa.Column("preview", sa.String(100), nullable=False, server_default=""),
    sa.Column("pinned", sa.Boolean(), nullable=False, server_default="0"),
    sa.Column("messages", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("running", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("spoken", sa.Boolean(), nullable=False, server_default="0"),
    sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("deletion_id", ID),
    sa.Column("listed_at", MOMENT),
)
FIRST_LINE = "trim(substr(replace(replace(m.content, '\r', ' '), '\n', ' '), 1, {most}))"
SAID = "FROM messages m WHERE m.session_id = sessions.id"
FILL = (
    "UPDATE sessions SET"  # noqa: S608 - made of constants
    f" title = coalesce((SELECT {FIRST_LINE.format(most=30)} {SAID} AND m.version = 0"
    " ORDER BY m.position LIMIT 1), ''),"
    f" preview = coalesce((SELECT {FIRST_LINE.format(most=100)} {SAID} AND length(m.content) > 0"
    " ORDER BY m.position DESC, m.version DESC LIMIT 1), ''),"
    f" messages = 2 * (SELECT count(*) {SAID} AND m.version = 0),"
    f" running = (SELECT count(*) {SAID} AND m.status = 'running'),"
    f" spoken = EXISTS (SELECT 1 {SAID} AND m.status IN ('complete', 'stopped') AND length(m.content) > 0)"
)
LIST = "UPDATE sessions SET listed_at = updated_at WHERE spoken OR running > 0"


def upgrade() -> None:
    """Add columns, indexes and tables, and fill in what old rows tell."""
    _create_tables()
    if op.get_context().dialect.name == "mysql":  # one statement a table: there is no half of it to be left behind
        op.execute("ALTER TABLE users ADD COLUMN revision BIGINT NOT NULL DEFAULT 0")
        op.execute(
            "ALTER TABLE sessions ADD COLUMN title VARCHAR(60) NOT NULL DEFAULT '',"
            " ADD COLUMN title_source VARCHAR(8) NOT NULL DEFAULT 'question',"
            " ADD COLUMN preview VARCHAR(100) NOT NULL DEFAULT '', ADD COLUMN pinned BOOL NOT NULL DEFAULT FALSE,"
            " ADD COLUMN messages INTEGER NOT NULL DEFAULT 0, ADD COLUMN running INTEGER NOT NULL DEFAULT 0,"
            " ADD COLUMN spoken BOOL NOT NULL DEFAULT FALSE, ADD COLUMN revision BIGINT NOT NULL DEFAULT 0,"
            " ADD COLUMN deletion_id VARCHAR(32), ADD COLUMN listed_at DATETIME(6)"
        )
    else:
        op.add_column("users", OF_USERS)
        for column in OF_SESSIONS:
            op.add_column("sessions", column)
    op.execute(FILL)
    op.execute(LIST)
    op.create_index("ix_messages_user_id_id", "messages", ["user_id", "id"])
    op.create_index("ix_sessions_user_id_pinned_listed_at_id", "sessions", ["user_id", "pinned", "listed_at", "id"])
    op.create_index("ix_sessions_user_id_id", "sessions", ["user_id", "id"])
    op.create_index("ix_sessions_deletion_id", "sessions", ["deletion_id"])
    op.drop_index("ix_sessions_user_id_updated_at", "sessions")


def _create_tables() -> None:
    op.create_table(
        "usage_days",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("audio_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "day"),
        **ON_MYSQL,
    )
    op.create_table(
        "deletions",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("session_id", ID),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **ON_MYSQL,
    )
    op.create_index("ix_deletions_user_id", "deletions", ["user_id"])
    op.create_index("ix_deletions_until", "deletions", ["until"])
    op.create_table(
        "erasures",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
        **ON_MYSQL,
    )
    op.create_table(
        "jobs",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("owner", ID, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        **ON_MYSQL,
    )


def downgrade() -> None:
    """Drop them."""
    op.create_index("ix_sessions_user_id_updated_at", "sessions", ["user_id", "updated_at"])
    op.drop_index("ix_messages_user_id_id", "messages")
    op.drop_index("ix_sessions_user_id_pinned_listed_at_id", "sessions")
    op.drop_index("ix_sessions_user_id_id", "sessions")
    op.drop_index("ix_sessions_deletion_id", "sessions")
    for column in reversed(OF_SESSIONS):
        op.drop_column("sessions", column.name)
    op.drop_column("users", "revision")
    for table in ("jobs", "erasures", "deletions", "usage_days"):
        op.drop_table(table)
