"""Rows of several tables changed by one statement, where the database has that: one round trip instead of a unit.

MySQL updates several tables at once. SQLite updates one after the other, which is whole because every change is a unit
there (see `SqlStore.apply`); a trip to it costs little.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chatassist.adapters.persistence.prepared import Prepared, Values

New = Mapping[Column[Any], Any]
"""New values by column. None may depend on another column that is new unless it stands before that one: databases
differ in whether an expression sees the old value or the new one, but those before are old in all of them."""
Linked = tuple[Table, ColumnElement[bool], New]
"""A table, what links its row to the first one, and its new values."""


class Together:
    """A row that is found by `found`, if it is `fit`, and rows linked to it."""

    def __init__(self, table: Table, found: ColumnElement[bool], fit: ColumnElement[bool], new: New, *others: Linked):
        links = [link for _, link, _ in others]
        everything: dict[Any, Any] = dict(new)
        for _, _, values in others:
            everything |= values
        self._at_once = Prepared(update(table).where(found, fit, *links).values(everything))
        self._in_turn: Sequence[Prepared] = [
            Prepared(update(table).where(found, fit).values(dict(new))),
            *(Prepared(update(other).where(found, link).values(dict(values))) for other, link, values in others),
        ]

    async def change(self, db: AsyncConnection, values: Values) -> bool:
        """Change them all; False where one of the rows is not there, and then MySQL changes none."""
        if db.dialect.name == "mysql":
            return bool(await self._at_once.change(db, values))
        for statement in self._in_turn:
            if not await statement.change(db, values):
                return False
        return True
