"""Which database, and how connections to it are made. Knows drivers and pragmas; knows no table."""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Dialect, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

DEFAULT_DATABASE = "chatassist"
SECONDS_TO_CONNECT = 5
_SECONDS_IDLE = 60
_DRIVERS = {
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "mysql": "mysql+asyncmy",
    "mysql+asyncmy": "mysql+asyncmy",
    "mysql+aiomysql": "mysql+aiomysql",
}
_ACCEPTED = (
    "the database URL must be sqlite+aiosqlite:///file, mysql+asyncmy://host/name, mysql+aiomysql://host/name, "
    "mysql://host/name or jdbc:mysql://host:3306"
)
_MYSQL_SESSION = (
    # A claim must see what was committed while it waited for the session's row; repeatable read would not.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 5",  # seconds
    # What a machine that vanished amid a unit of work holds is let go after so many seconds, instead of 8 hours.
    f"SET SESSION wait_timeout = {_SECONDS_IDLE}",
)
_SQLITE_SESSION = (
    "PRAGMA busy_timeout = 5000",  # ms; first, so that the next ones wait as well
    "PRAGMA journal_mode = WAL",  # readers do not wait for the writer; `migrate` has set it, where it takes a lock
    "PRAGMA synchronous = NORMAL",  # what WAL needs to survive a crash of the process
    "PRAGMA foreign_keys = ON",
)


def database_url(url: str, user: str | None = None, password: str | None = None) -> URL:
    """Return what `url` means to SQLAlchemy; `user` and `password` replace those in it.

    Accepts JDBC's form too, whose parameters other than user and password mean nothing here and are left out. Without
    a database name it is `chatassist`. Raises ValueError, in one sentence that holds nothing of the URL.
    """
    try:
        given = make_url(url.removeprefix("jdbc:"))
    except (ArgumentError, ValueError):
        raise ValueError(_ACCEPTED) from None  # theirs quotes the URL, and so its password
    if given.drivername not in _DRIVERS or (url.startswith("jdbc:") and given.drivername != "mysql"):
        raise ValueError(_ACCEPTED)
    if given.drivername.startswith("sqlite"):
        return _sqlite_url(given)
    if url.startswith("jdbc:"):
        given = _without_jdbc_parameters(given)
    if not set(given.query) <= {"charset", "unix_socket"}:
        raise ValueError("a database URL may have the parameters charset and unix_socket, and no other")
    return _mysql_url(given, user, password)


def _sqlite_url(given: URL) -> URL:
    if not given.database or ":memory:" in given.database:
        raise ValueError("an SQLite database URL must name a file; what need not last is kept by the memory store")
    return given


def _without_jdbc_parameters(given: URL) -> URL:
    account = {name: value for name, value in given.query.items() if isinstance(value, str)}
    return given.set(
        username=given.username or account.get("user"),
        password=given.password or account.get("password"),
        query={},
    )


def _mysql_url(given: URL, user: str | None, password: str | None) -> URL:
    return given.set(
        drivername=_DRIVERS[given.drivername],
        username=user or given.username,
        password=password or given.password,
        host=given.host or "localhost",
        database=given.database or DEFAULT_DATABASE,
    ).update_query_dict({"charset": "utf8mb4"})


def open_engine(url: URL, *, pool_size: int = 10) -> AsyncEngine:
    """Return an engine on `database_url(...)`; it connects on first use, and who opens it disposes of it.

    Always in AUTOCOMMIT: a single statement costs one round trip, and a unit of work says BEGIN and COMMIT itself.
    No ping before use, which would cost another one: who runs a unit repeats it when its connection was dead. No read
    timeout either, which one driver has and which costs CPU: whoever runs a unit bounds all of it.
    """
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,  # a returned connection has nothing to roll back
        hide_parameters=True,  # errors are logged, users' words are not
        pool_size=pool_size,
        max_overflow=1 if sqlite else 0,  # its one writer, beside the readers
        pool_timeout=3,
        pool_recycle=_SECONDS_IDLE - 15,  # below the idle limits of servers and of what stands between
        pool_use_lifo=True,  # what is not needed grows old and goes
        connect_args={} if sqlite else {"connect_timeout": SECONDS_TO_CONNECT},
    )
    if not sqlite:
        _name_hang_ups(engine)
        close_dead_lines(engine)
    prepare_sessions(engine, _SQLITE_SESSION if sqlite else _MYSQL_SESSION)
    return engine


def _name_hang_ups(engine: AsyncEngine) -> None:
    """Say so where a connection is lost while it is made: MySQL's drivers stumble over the socket that is gone."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Dialect, _record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        try:
            return dialect.connect(*arguments, **named)
        except RuntimeError as error:
            raise ConnectionResetError("hung up on while connecting") from error


def close_dead_lines(engine: AsyncEngine) -> None:
    """Close a connection even where the server cannot be told so: aiomysql stumbles over it and leaves it open."""

    @event.listens_for(engine.sync_engine, "close")
    def terminate(connection: Any, _record: Any) -> None:
        connection.terminate()


async def close_engine(engine: AsyncEngine) -> None:
    """Close every connection, and those in use when they are given back, where `dispose` alone would forget them."""
    event.listen(engine.sync_engine, "checkin", _close)
    await engine.dispose()


def _close(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def prepare_sessions(engine: AsyncEngine, statements: tuple[str, ...]) -> None:
    """Run `statements` on every new connection."""

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
