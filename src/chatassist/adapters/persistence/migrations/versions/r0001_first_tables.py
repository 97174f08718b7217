"""The first tables. MySQL cannot undo a half of this; on failure drop the (empty) database and start again."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ON_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
CONTENT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    """Create people, conversations and instances."""
    _create_people()
    _create_conversations()
    op.create_table(
        "instances",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **ON_MYSQL,
    )


def _create_people() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("openid", sa.String(128), nullable=False),
        sa.Column("nickname", sa.String(32), nullable=False),
        sa.Column("avatar", sa.String(512), nullable=False),
        sa.Column("is_dark_mode", sa.Boolean(), nullable=False),
        sa.Column("auto_read", sa.Boolean(), nullable=False),
        sa.Column("save_history", sa.Boolean(), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("openid", name="uq_users_openid"),
        **ON_MYSQL,
    )
    op.create_table(
        "logins",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **ON_MYSQL,
    )
    op.create_index("ix_logins_user_id", "logins", ["user_id"])
    op.create_index("ix_logins_expires_at", "logins", ["expires_at"])


def _create_conversations() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **ON_MYSQL,
    )
    op.create_index("ix_sessions_user_id_updated_at", "sessions", ["user_id", "updated_at"])
    op.create_table(
        "messages",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("session_id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", CONTENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("attempt", sa.Integer()),
        sa.Column("instance_id", sa.String(32)),
        sa.Column("client_key", sa.String(64)),
        sa.Column("requested_model", sa.String(128)),
        sa.Column("status", sa.String(16)),
        sa.Column("finish_reason", sa.String(16)),
        sa.Column("reason", sa.String(64)),
        sa.Column("model", sa.String(128)),
        sa.Column("input_tokens", sa.Integer()),
        sa.Column("output_tokens", sa.Integer()),
        sa.Column("ended_at", MOMENT),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "position", "version", name="uq_messages_session_id_position_version"),
        sa.UniqueConstraint("user_id", "client_key", name="uq_messages_user_id_client_key"),
        **ON_MYSQL,
    )
    op.create_index("ix_messages_status_instance_id", "messages", ["status", "instance_id"])


def downgrade() -> None:
    """Drop everything."""
    for table in ("instances", "messages", "sessions", "logins", "users"):
        op.drop_table(table)
