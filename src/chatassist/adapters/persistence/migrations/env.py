"""How Alembic runs here: always on the connection that `migrate.configuration` was given."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from chatassist.adapters.persistence.tables import Row, UtcDateTime


def render_item(kind: str, item: Any, writing: AutogenContext) -> str | Literal[False]:
    """Write our column types as plain ones: a migration must not change when the code does."""
    if kind == "type" and isinstance(item, UtcDateTime):
        writing.imports.add("from sqlalchemy.dialects import mysql")
        return "sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql')"
    if kind == "type" and type(item).__name__ == "AutoString":
        return f"sa.String(length={item.length})"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Row.metadata,
    compare_type=True,
    compare_server_default=True,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=True,  # MySQL commits at every DDL statement; so one statement of DDL per revision
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
