"""The model that a session chose, and whether a reply's tokens are only estimated."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OF_SESSIONS: sa.Column[Any] = sa.Column("model", sa.String(128))
OF_MESSAGES: sa.Column[Any] = sa.Column("usage_estimated", sa.Boolean())


def upgrade() -> None:
    """Add the columns, one a table: last and nullable, so that MySQL touches no row."""
    op.add_column("sessions", OF_SESSIONS)
    op.add_column("messages", OF_MESSAGES)


def downgrade() -> None:
    """Drop them."""
    op.drop_column("messages", OF_MESSAGES.name)
    op.drop_column("sessions", OF_SESSIONS.name)
