"""What a reply has reached while it runs, what the model thought, and what the user thinks of it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = (
    sa.Column("seq", sa.BigInteger()),
    sa.Column("thinking", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")),
    sa.Column("rating", sa.String(8)),
    sa.Column("comment", sa.String(500)),
)


def upgrade() -> None:
    """Add the columns: on MySQL in one statement, so that there is no half of it to be left behind."""
    if op.get_context().dialect.name == "mysql":
        op.execute(
            "ALTER TABLE messages ADD COLUMN seq BIGINT, ADD COLUMN thinking MEDIUMTEXT,"
            " ADD COLUMN rating VARCHAR(8), ADD COLUMN comment VARCHAR(500)"
        )
    else:
        for column in COLUMNS:
            op.add_column("messages", column)
    op.execute("UPDATE messages SET seq = (attempt + 1) * 1000000 WHERE version > 0")


def downgrade() -> None:
    """Drop them."""
    for column in reversed(COLUMNS):
        op.drop_column("messages", column.name)
