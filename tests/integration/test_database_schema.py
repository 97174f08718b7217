"""Which database is meant, and how it comes to this version's schema."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, inspect, text

from chatassist.adapters.persistence.drift import drift
from chatassist.adapters.persistence.engine import database_url, open_engine
from chatassist.adapters.persistence.migrate import SchemaBehind, configuration, migrate
from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.turns import Usage
from tests.builders import new_id
from tests.fixtures.databases import MYSQL_DRIVERS, drop_database, new_database
from tests.integration.storing import opened

UTF8 = "?charset=utf8mb4"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("jdbc:mysql://localhost:3306", f"mysql+asyncmy://localhost:3306/chatassist{UTF8}"),
        (
            "jdbc:mysql://db/chat?useSSL=false&serverTimezone=UTC&characterEncoding=utf8",
            f"mysql+asyncmy://db/chat{UTF8}",
        ),
        ("jdbc:mysql://db?user=u&password=p%40", f"mysql+asyncmy://u:p%40@db/chatassist{UTF8}"),
        ("mysql://u:p@db:3307/chat", f"mysql+asyncmy://u:p@db:3307/chat{UTF8}"),
        ("mysql+asyncmy://db?charset=latin1", f"mysql+asyncmy://db/chatassist{UTF8}"),
        ("mysql+aiomysql://[::1]:3306/chat", f"mysql+aiomysql://[::1]:3306/chat{UTF8}"),
        ("sqlite+aiosqlite:///var/chat.db", "sqlite+aiosqlite:///var/chat.db"),
        ("sqlite+aiosqlite:////var/chat.db", "sqlite+aiosqlite:////var/chat.db"),
    ],
)
def test_every_accepted_form_of_a_database_url(given: str, meant: str) -> None:
    assert database_url(given).render_as_string(hide_password=False) == meant


def test_settings_for_user_and_password_replace_those_of_the_url() -> None:
    url = database_url("jdbc:mysql://u:p@localhost:3306?password=q", "root", "p@ss/w:rd")
    assert (url.username, url.password, url.host, url.port) == ("root", "p@ss/w:rd", "localhost", 3306)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "secret",
        "postgresql://u:secret@db/chat",
        "mysql+pymysql://u:secret@db/chat",
        "mysql://u:sec@ret:secret@db:secret/chat",
        "jdbc:postgresql://db/chat?password=secret",
        "jdbc:mysql+asyncmy://u:secret@db",
        "jdbc:sqlite+aiosqlite:///secret",
        "sqlite:///secret.db",
        "mysql://u:secret@db/chat?useSSL=false",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
    ],
)
def test_any_other_url_is_refused_without_being_quoted(given: str) -> None:
    with pytest.raises(ValueError, match="database URL m") as caught:
        database_url(given, "user", "secret")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.fixture(params=["sqlite", *MYSQL_DRIVERS])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server_url(database_kind: str, request: pytest.FixtureRequest) -> str | None:
    return None if database_kind == "sqlite" else str(request.getfixturevalue("mysql_server"))


@pytest.fixture
async def missing_database(database_kind: str, server_url: str | None, tmp_path: Path) -> AsyncIterator[URL]:
    """A database that does not exist yet; for SQLite, in a folder that does not either."""
    if server_url is None:
        yield database_url(f"sqlite+aiosqlite:///{tmp_path}/new/folder/chat.db")
        return
    url = await new_database(server_url, database_kind)
    await drop_database(server_url, url)
    yield url
    await drop_database(server_url, url)


async def check(url: URL) -> None:
    async with opened(url) as store:
        await store.check()


async def test_migrating_creates_the_database_leads_to_the_declared_tables_and_back(missing_database: URL) -> None:
    with pytest.raises(StoreUnavailable, match="run `chatassist migrate`"):
        await check(missing_database)
    for _ in range(2):  # the second time nothing is left to do
        await migrate(missing_database)
    await check(missing_database)
    engine = open_engine(missing_database)
    assert await drift(engine) is None
    async with engine.connect() as db:
        await db.run_sync(lambda connection: command.downgrade(configuration(connection), "base"))
        assert await db.run_sync(lambda connection: inspect(connection).get_table_names()) == ["alembic_version"]
    await engine.dispose()
    with pytest.raises(SchemaBehind, match="run `chatassist migrate`"):
        await check(missing_database)


OLD_ROWS = (
    "INSERT INTO sessions (id, user_id, turns, created_at, updated_at) VALUES ('s', 'u', 1, :now, :now)",
    "INSERT INTO messages (id, session_id, user_id, position, version, content, created_at)"
    " VALUES ('q', 's', 'u', 1, 0, '问题 😀', :now)",
    "INSERT INTO messages (id, session_id, user_id, position, version, content, created_at, attempt, instance_id,"
    " client_key, status, finish_reason, ended_at)"
    " VALUES ('r', 's', 'u', 1, 1, '回答 😀', :now, 2, 'i', 'k', 'complete', 'stop', :now)",
)


async def test_turns_of_the_first_version_survive_the_way_up_and_down(missing_database: URL) -> None:
    """A reply stored before there were numbers has ended with the last one of its attempt."""
    await migrate(missing_database)
    engine = open_engine(missing_database)

    async def go(where: str) -> None:
        step = command.downgrade if where == "0001" else command.upgrade
        async with engine.connect() as db:
            await db.run_sync(lambda connection: step(configuration(connection), where))

    async def kept() -> list[tuple[str, ...]]:
        async with engine.connect() as db:
            rows = await db.execute(text("SELECT id, content, status, client_key FROM messages ORDER BY version"))
            return [tuple(row) for row in rows]

    await go("0001")
    async with engine.connect() as db:
        for statement in OLD_ROWS:
            await db.execute(text(statement), {"now": "2026-11-22 12:00:00.000000"})
    before = await kept()
    for _ in range(2):
        await go("head")
        assert await kept() == before
        assert await drift(engine) is None
        async with engine.connect() as db:
            columns = await db.execute(text("SELECT seq, thinking, rating, comment FROM messages ORDER BY version"))
            assert [tuple(row) for row in columns] == [(None,) * 4, (3_000_000, None, None, None)]
        async with opened(missing_database) as store:
            turn = await store.read(lambda tx: tx.turns.find_by_key("k", "u"))
        assert turn is not None
        assert (turn.message.content, turn.reply.content, turn.reply.seq) == ("问题 😀", "回答 😀", 3_000_000)
        assert turn.reply.seq == turn.reply.last_seq
        await go("0001")
        assert await kept() == before
    await engine.dispose()


COUNTED = (
    "INSERT INTO sessions (id, user_id, turns, created_at, updated_at) VALUES ('s', 'u', 1, :now, :now)",
    "INSERT INTO messages (id, session_id, user_id, position, version, content, created_at)"
    " VALUES ('q', 's', 'u', 1, 0, '问题', :now)",
    "INSERT INTO messages (id, session_id, user_id, position, version, content, created_at, attempt, instance_id,"
    " requested_model, status, finish_reason, model, input_tokens, output_tokens, ended_at, seq)"
    " VALUES ('r', 's', 'u', 1, 1, '回答', :now, 0, 'i', 'm', 'complete', 'stop', 'm', 3, 4, :now, 9)",
)


async def test_sessions_without_a_choice_and_tokens_that_vendors_counted_survive_the_way_up_and_down(
    missing_database: URL,
) -> None:
    await migrate(missing_database)
    engine = open_engine(missing_database)

    async def go(step: Callable[[Config, str], None], where: str) -> None:
        async with engine.connect() as db:
            await db.run_sync(lambda connection: step(configuration(connection), where))

    await go(command.downgrade, "0003")
    async with engine.connect() as db:
        for statement in COUNTED:
            await db.execute(text(statement), {"now": "2026-11-22 12:00:00.000000"})
        await db.commit()
    for _ in range(2):
        await go(command.upgrade, "0004")
        assert await drift(engine) is None
        async with opened(missing_database) as store:
            await store.check()
            session = await store.read(lambda tx: tx.sessions.get("s", "u"))
            turn = await store.read(lambda tx: tx.turns.find("r", "u"))
        assert (session.model, session.turns) == (None, 1)
        assert turn is not None
        assert turn.reply.usage == Usage(input_tokens=3, output_tokens=4)
        await go(command.downgrade, "0003")
        with pytest.raises(SchemaBehind, match="run `chatassist migrate`"):
            await check(missing_database)
    await engine.dispose()


async def test_a_database_of_the_first_version_refuses_the_start(missing_database: URL) -> None:
    await migrate(missing_database)
    engine = open_engine(missing_database)
    async with engine.connect() as db:
        await db.run_sync(lambda connection: command.downgrade(configuration(connection), "0001"))
    await engine.dispose()
    with pytest.raises(SchemaBehind, match="run `chatassist migrate`"):
        await check(missing_database)
    await migrate(missing_database)
    await check(missing_database)


async def test_drift_is_noticed(missing_database: URL) -> None:
    await migrate(missing_database)
    engine = open_engine(missing_database)
    async with engine.connect() as db:
        await db.exec_driver_sql("ALTER TABLE users ADD COLUMN extra INTEGER")
        await db.exec_driver_sql("CREATE INDEX ix_extra ON sessions (turns)")
    found = await drift(engine)
    await engine.dispose()
    assert found is not None
    assert "extra" in found
    assert "ix_extra" in found


async def test_a_newer_versions_database_is_left_alone(missing_database: URL) -> None:
    await migrate(missing_database)
    engine = open_engine(missing_database)
    async with engine.connect() as db:
        await db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await engine.dispose()
    with pytest.raises(SchemaBehind):
        await check(missing_database)
    with pytest.raises(StoreUnavailable, match="does not know"):
        await migrate(missing_database)


async def test_several_may_migrate_at_once(missing_database: URL) -> None:
    await asyncio.gather(*(migrate(missing_database) for _ in range(4)))
    await check(missing_database)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "ALTER TABLE users MODIFY nickname VARCHAR(32) CHARACTER SET utf8mb3 NOT NULL",
    ],
)
async def test_the_tables_hold_what_mysql_would_otherwise_lose(migrated_mysql: URL, change: str) -> None:
    engine = open_engine(migrated_mysql)
    async with engine.connect() as db:
        tables = await db.execute(
            text("SELECT engine, table_collation FROM information_schema.tables WHERE table_schema = database()")
        )
        assert ("InnoDB", "utf8mb4_bin") in (found := {tuple(row) for row in tables})
        assert len(found) == 1
        sized = text(
            "SELECT column_name, datetime_precision, data_type FROM information_schema.columns"
            " WHERE table_schema = database() AND (data_type = 'datetime' OR column_name IN ('content', 'thinking'))"
        )
        assert {(row[1], row[2]) for row in await db.execute(sized)} == {(6, "datetime"), (None, "mediumtext")}
        await db.exec_driver_sql(change)
    try:
        with pytest.raises(SchemaBehind, match="utf8mb4_bin"):
            await check(migrated_mysql)
    finally:
        async with engine.connect() as db:
            await db.exec_driver_sql("ALTER TABLE users CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        await engine.dispose()


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_an_account_that_may_not_create_the_database_is_told_the_line_to_run(
    mysql_server: str, driver: str
) -> None:
    url = await new_database(mysql_server, driver)
    await drop_database(mysql_server, url)
    account = f"u{new_id()[-8:]}"
    engine = open_engine(database_url(mysql_server).set(database="information_schema"), pool_size=1)
    async with engine.connect() as db:
        await db.exec_driver_sql(f"CREATE USER '{account}'@'%%' IDENTIFIED BY 'known-Only-here1'")
        with pytest.raises(StoreUnavailable) as caught:
            await migrate(url.set(username=account, password="known-Only-here1"))
        sentence = str(caught.value)
        assert "known-Only-here1" not in sentence
        assert f"CREATE DATABASE `{url.database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;" in sentence
        for statement in sentence.partition("run: ")[2].rstrip(";").split("; "):
            await db.exec_driver_sql(statement.replace("%", "%%"))  # as an administrator would
        await migrate(url.set(username=account, password="known-Only-here1"))
        await check(url)
        await db.exec_driver_sql(f"DROP USER '{account}'@'%%'")
    await engine.dispose()
    await drop_database(mysql_server, url)
