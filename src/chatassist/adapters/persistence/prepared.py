"""Hot statements, compiled once for each dialect and given straight to the driver.

On the path of a turn SQLAlchemy's execution (cache keys, contexts, result metadata, rows) cost more than the driver's
own work: 55 to 150 µs a statement, and its way to an async driver, a greenlet, another 40. What it does for correctness
stays: types are converted both ways, and a failure goes its way, so that errors are the same and a cancelled or lost
connection is thrown away. Its execution events are not sent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import BindParameter, Connection, Dialect, Insert, Select, TextClause, Update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

T = TypeVar("T")
Values = Mapping[str, Any]
_Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement in one dialect, with the conversion of each parameter and of each column that needs one."""

    sql: str
    positional: bool
    fixed: Values
    binds: Sequence[tuple[str, _Convert | None]]
    results: Sequence[tuple[int, _Convert]]

    def given(self, values: Values) -> Any:
        """Return the driver's parameters. Raises KeyError for one that is missing."""
        known = {**self.fixed, **values}
        if self.positional:
            return tuple([convert(known[name]) if convert else known[name] for name, convert in self.binds])
        return {name: convert(known[name]) if convert else known[name] for name, convert in self.binds}

    def read(self, row: Sequence[Any]) -> Sequence[Any]:
        """Return a row in Python's types."""
        converted = list(row)
        for place, convert in self.results:
            converted[place] = convert(converted[place])
        return converted


class Prepared:
    """A statement of Core, without IN lists; a text is no query. `columns`: what an INSERT fills."""

    def __init__(self, statement: Select[Any] | Insert | Update | TextClause, *columns: str) -> None:
        self._statement = statement
        self._columns = columns or None
        self._forms: WeakKeyDictionary[Dialect, _Form] = WeakKeyDictionary()

    async def rows(self, db: AsyncConnection, values: Values) -> Sequence[Sequence[Any]]:
        """Return all rows of a query. Raises what SQLAlchemy would."""
        form = self._form(db.dialect)
        given = form.given(values)

        async def ask(cursor: Any) -> Sequence[Any]:
            await cursor.execute(form.sql, given)
            rows: Sequence[Any] = await cursor.fetchall()
            return rows

        return [form.read(row) for row in await _through(db, ask)]

    async def change(self, db: AsyncConnection, *values: Values) -> int:
        """Run the statement for these values, all at once; return how many rows it found. Raises as `rows` does."""
        form = self._form(db.dialect)
        given = [form.given(each) for each in values]

        async def ask(cursor: Any) -> int:
            if len(given) == 1:
                await cursor.execute(form.sql, given[0])
            else:
                await cursor.executemany(form.sql, given)
            return int(cursor.rowcount)

        return await _through(db, ask)

    def _form(self, dialect: Dialect) -> _Form:
        """Compile at the first use: only a dialect that has met its server knows it."""
        form = self._forms.get(dialect)
        if form is None:
            form = self._forms[dialect] = self._compiled(dialect)
        return form

    def _compiled(self, dialect: Dialect) -> _Form:
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=self._columns)
        if compiled.post_compile_params:
            raise ValueError("a prepared statement has no lists")
        names: Sequence[str] = compiled.positiontup if compiled.positional else list(compiled.binds)
        binds: Mapping[str, BindParameter[Any]] = compiled.binds
        selected = self._statement.selected_columns if isinstance(self._statement, Select) else ()
        reads = [_adapted(column.type, dialect).result_processor(dialect, None) for column in selected]
        return _Form(
            sql=str(compiled),
            positional=compiled.positional,
            fixed={name: bind.value for name, bind in binds.items() if not bind.required},
            binds=[(name, _adapted(binds[name].type, dialect).bind_processor(dialect)) for name in names],
            results=[(place, read) for place, read in enumerate(reads) if read is not None],
        )


async def say(db: AsyncConnection, command: str) -> None:
    """Run a command that takes and gives nothing. Raises what SQLAlchemy would."""
    await _through(db, lambda cursor: cursor.execute(command))


async def _through(db: AsyncConnection, ask: Callable[[Any], Awaitable[T]]) -> T:
    """Ask through a cursor of the driver; drop a connection on which anything may still be under way.

    aiomysql, asyncmy and aiosqlite have the same cursors, as far as they are used here.
    """
    below = db.sync_connection
    if below is None or below.invalidated:  # it would reconnect, and go on outside of the unit's transaction
        raise InvalidRequestError("the connection was lost before, within the same unit")
    try:
        async with _driver(below).cursor() as cursor:
            return await ask(cursor)
    except BaseException as error:  # cancellation too: half an answer may be on its way
        await db.run_sync(_fail, error)
        raise AssertionError from error  # it has raised


def _driver(db: Connection) -> Any:
    return db.connection.driver_connection


def _fail(db: Connection, error: BaseException) -> NoReturn:
    """Raise what SQLAlchemy makes of a driver's error; where it was cut short or lost, drop the connection."""
    adapted: Any = db.connection.dbapi_connection
    try:
        if isinstance(error, Exception):
            adapted._handle_exception(error)  # noqa: SLF001 - names what a driver stumbles over, and raises it
        raise error  # noqa: TRY301 - SQLAlchemy looks at what is being handled here
    except BaseException as named:  # noqa: BLE001 - as above
        if not isinstance(named, db.dialect.loaded_dbapi.Error):  # no answer of the database's: who knows what comes
            db.invalidate(named)
        db._handle_dbapi_exception(named, None, None, None, None)  # noqa: SLF001 - there is no public way


def _adapted(kind: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    return kind.dialect_impl(dialect)
