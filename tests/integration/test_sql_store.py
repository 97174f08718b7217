"""What the SQL store does when its database deadlocks, hangs, dies or loses connections. Real servers throughout."""

import asyncio
import gc
import random
import sqlite3
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import IntegrityError

from chatassist.adapters.persistence import sql
from chatassist.adapters.persistence.migrate import migrate
from chatassist.adapters.persistence.sql import SqlStore
from chatassist.domain.errors import CommitUnknown, StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Transaction
from tests.builders import NOW, a_session, a_turn, a_user, new_id
from tests.fixtures.databases import MYSQL_DRIVERS, new_database
from tests.fixtures.mariadb import PASSWORD, MariaDbServer
from tests.fixtures.proxy import cutting_commits
from tests.integration.storing import connected, opened


async def add(store: SqlStore, user: User) -> None:
    await store.write(lambda tx: tx.users.add(user))


async def _add(tx: Transaction, *, user: User) -> None:
    await tx.users.add(user)


async def get(store: SqlStore, user: User) -> User | None:
    return await store.read(lambda tx: tx.users.find_by_id(user.id))


# --- Collisions -----------------------------------------------------------------------------------------------------


async def test_a_deadlock_is_repeated_until_both_units_are_whole(mysql: URL) -> None:
    users = [a_user(), a_user()]
    first, second = map(a_session, users)
    runs = 0

    async with opened(mysql) as store:
        for user, session in zip(users, (first, second), strict=True):
            await store.write(lambda tx, user=user: tx.users.add(user))  # type: ignore[misc]
            await store.write(lambda tx, session=session: tx.sessions.add(session))  # type: ignore[misc]
        holding = [asyncio.Event(), asyncio.Event()]

        async def touch_both(tx: Transaction, mine: int) -> None:
            nonlocal runs
            runs += 1
            order = (first, second) if mine == 0 else (second, first)
            await tx.sessions.touch(order[0].id, order[0].user_id, NOW)
            holding[mine].set()
            await holding[1 - mine].wait()
            await tx.sessions.touch(order[1].id, order[1].user_id, NOW)

        await asyncio.gather(*(store.write(lambda tx, mine=mine: touch_both(tx, mine)) for mine in (0, 1)))  # type: ignore[misc]
        assert runs == 3
        for session in (first, second):
            assert (await store.read(lambda tx, one=session: tx.sessions.get(one.id, one.user_id))).turns == 2  # type: ignore[misc]


async def test_a_position_used_twice_is_a_defect_and_not_a_key_that_is_taken(mysql: URL) -> None:
    async with opened(mysql) as store:
        session = a_session(a_user())
        await store.write(lambda tx: tx.turns.add(a_turn(session, 1, key="one")))
        with pytest.raises(IntegrityError):
            await store.write(lambda tx: tx.turns.add(a_turn(session, 1, key="two")))


async def test_a_unit_sees_what_others_committed_since_it_began(mysql: URL) -> None:
    """Else a unit that loses a race could not find the winner."""
    async with opened(mysql) as store:

        async def lose(tx: Transaction) -> User | None:
            assert await tx.users.find(user.openid) is None
            await add(store, user)
            with pytest.raises(Taken):
                await tx.users.add(a_user(openid=user.openid))
            return await tx.users.find(user.openid)

        user = a_user()
        assert await store.write(lose) == user


async def test_sqlite_waits_for_a_writer_in_another_process(sqlite_url: URL) -> None:
    other = sqlite3.connect(str(sqlite_url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with opened(sqlite_url) as store:
        writing = asyncio.create_task(add(store, user := a_user()))
        await store.check()  # reading goes on
        assert not writing.done()
        other.execute("COMMIT")
        other.close()
        await writing
        assert await get(store, user) == user


async def test_a_unit_that_gets_no_connection_in_time_says_so_and_leaves_the_others_alone(mysql: URL) -> None:
    async with opened(mysql, pool_size=1, patience=0.3) as store, opened(mysql) as other:
        session = a_session(user := a_user())
        await store.write(lambda tx: tx.users.add(user))
        await store.write(lambda tx: tx.sessions.add(session))
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def hold(tx: Transaction) -> None:
            await tx.sessions.touch(session.id, user.id, NOW)
            entered.set()
            await go_on.wait()

        holding = asyncio.create_task(_run(other.write, hold))
        await entered.wait()
        with pytest.raises(StoreUnavailable, match=r"within 0\.3 s"):  # the row is locked
            await store.write(lambda tx: tx.sessions.touch(session.id, user.id, NOW))
        go_on.set()
        await holding
        await store.write(lambda tx: tx.sessions.touch(session.id, user.id, NOW))
        assert (await store.read(lambda tx: tx.sessions.get(session.id, user.id))).turns == 2


async def _run(call: Callable[..., Awaitable[None]], work: Callable[[Transaction], Any]) -> None:
    await call(work)


async def test_cancelled_readers_never_get_or_cause_anothers_answer(mysql: URL) -> None:
    dice = random.Random(11)  # noqa: S311 - no secret
    async with opened(mysql, pool_size=4) as store:
        users = [a_user() for _ in range(20)]
        for user in users:
            await add(store, user)
        tasks = {asyncio.create_task(get(store, user)): user for _ in range(15) for user in users}
        for task in dice.sample(list(tasks), k=len(tasks)):
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
            if dice.random() < 0.5:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for answer, user in zip(answers, tasks.values(), strict=True):
            assert answer == user or isinstance(answer, asyncio.CancelledError)
        assert [await get(store, user) for user in users] == users


# --- Lost connections -----------------------------------------------------------------------------------------------


async def test_killed_idle_connections_cost_no_failed_request(mysql: URL) -> None:
    async with opened(mysql, pool_size=6) as store, connected(mysql.set(database="information_schema")) as admin:
        gate = asyncio.Barrier(6)

        async def meet(_: Transaction) -> None:
            await gate.wait()

        for call in (store.read, store.write, store.apply):
            await asyncio.gather(*(store.read(meet) for _ in range(6)))  # six connections, now idle
            mine = text("SELECT id FROM information_schema.processlist WHERE db = :db")
            for number in (await admin.scalars(mine, {"db": mysql.database})).all():
                await admin.exec_driver_sql(f"KILL {number}")
            users = [a_user() for _ in range(12)]
            if call != store.read:
                await asyncio.gather(*(call(partial(_add, user=user)) for user in users))
            found = await asyncio.gather(*(get(store, user) for user in users))
            assert found == ([None] * 12 if call == store.read else users)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_connection_lost_during_commit_leaves_the_outcome_unknown(mysql: URL, heard: bool) -> None:
    async with cutting_commits(mysql) as (cutter, through), opened(through) as store:
        await add(store, a_user())
        cutter.armed, cutter.heard = True, heard
        runs = 0

        async def work(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await tx.users.add(user)

        user = a_user()
        with pytest.raises(CommitUnknown):
            await store.write(work)
        assert runs == 1
        assert await get(store, user) == (user if heard else None)


async def test_who_is_hung_up_on_while_connecting_finds_the_database_away(
    mysql: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy does that has no server to lead to: the drivers raise RuntimeError under uvloop, OSError elsewhere."""
    async with cutting_commits(mysql) as (proxy, through), opened(through) as store:
        proxy.refuses = True
        with pytest.raises(StoreUnavailable):
            await get(store, a_user())
        proxy.refuses = False
        assert await get(store, a_user()) is None, "and it is back at once"

        def stumble(*_: Any, **__: Any) -> None:
            raise RuntimeError("Transport does not expose socket instance")

        proxy.cut()
        monkeypatch.setattr(store._connections._engine.sync_engine.dialect, "connect", stumble)
        with pytest.raises(StoreUnavailable):
            await get(store, a_user())


async def test_a_connection_that_died_while_idle_is_closed_with_the_store(mysql: URL) -> None:
    async with cutting_commits(mysql) as (proxy, through):
        async with opened(through) as store:
            await get(store, a_user())
            for line in proxy.lines:
                line.reset()
            for _ in range(10):  # the loop has seen it by then
                await asyncio.sleep(0)
        gc.collect()  # what is collected open warns, which is an error here


@pytest.mark.parametrize("store_kind", ["sqlite", *MYSQL_DRIVERS], indirect=True)
async def test_who_still_runs_when_the_store_is_closed_leaves_no_connection_open(
    store_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some have a connection, on MySQL the others wait for one until after the end."""
    monkeypatch.setattr(sql, "_SECONDS_TO_CLOSE", 0)
    entered, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def linger(tx: Transaction) -> None:
        entered.release()
        await go_on.wait()
        await tx.users.find("nobody")

    async with opened(store_url, pool_size=2) as store:
        running = [asyncio.create_task(_run(call, linger)) for call in (store.write, store.read) * 2]
        for _ in range(2):
            await entered.acquire()
    go_on.set()
    await asyncio.gather(*running)
    gc.collect()  # what is collected open warns, which is an error here


# --- A server that hangs, dies and comes back ------------------------------------------------------------------------


@pytest.fixture
async def server(start_mariadb: Callable[[], MariaDbServer]) -> MariaDbServer:
    return start_mariadb()


@pytest.fixture(params=MYSQL_DRIVERS)
async def own_mysql(server: MariaDbServer, request: pytest.FixtureRequest) -> URL:
    url = await new_database(server.url, request.param)
    await migrate(url)
    return url


async def _refused_in_time(store: SqlStore) -> list[StoreUnavailable]:
    started, errors = time.monotonic(), []
    for call in (add(store, a_user()), get(store, a_user()), store.check()):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        errors.append(caught.value)
    assert time.monotonic() - started < 3
    return errors


async def test_a_frozen_server_is_unavailable_in_time_and_used_again_at_once(
    server: MariaDbServer, own_mysql: URL
) -> None:
    async with opened(own_mysql, patience=0.4) as store:
        await add(store, before := a_user())
        server.pause()
        await _refused_in_time(store)  # first with a connection that was open, then with new ones
        server.resume()
        assert await get(store, before) == before

        async def freeze(tx: Transaction) -> None:
            await tx.users.add(a_user())
            server.pause()

        with pytest.raises(CommitUnknown):  # COMMIT was sent, and no answer came
            await store.write(freeze)
        server.resume()
        await add(store, a_user())


async def test_a_killed_server_is_unavailable_loses_nothing_and_is_used_again_at_once(
    server: MariaDbServer, own_mysql: URL
) -> None:
    async with opened(own_mysql) as store:
        await add(store, before := a_user())
        runs = 0

        async def die_once(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await tx.users.add(during)
            if runs == 1:
                server.kill()
                server.start()
            await tx.users.find_by_id(during.id)

        during = a_user()
        await store.write(die_once)
        assert runs == 2
        server.kill()
        for error in await _refused_in_time(store):
            assert "2003" in str(error)
        server.start()
        assert [await get(store, before), await get(store, during)] == [before, during]


async def test_no_error_tells_the_password_or_the_statement(server: MariaDbServer, own_mysql: URL) -> None:
    wrong = own_mysql.set(password="another-secret")
    missing = own_mysql.set(database="nowhere")
    for url in (wrong, missing, own_mysql):
        async with opened(url, patience=0.4) as store:
            if url == own_mysql:
                server.stop()
            for error in await _refused_in_time(store):
                assert "SELECT" not in str(error)
                told = "".join(traceback.format_exception(error))
                assert PASSWORD not in told
                assert "another-secret" not in told
            if url == missing:
                assert "chatassist migrate" in str(error)


async def test_the_very_first_login_with_caching_sha2_password_works(mysql: URL) -> None:
    """MySQL's default since 8: until one login has filled the server's cache, it takes RSA over plain TCP."""
    name, password = f"first_{new_id()[-8:]}", "Only-0n-loopback"
    async with connected(mysql) as admin:
        if "MariaDB" in str(await admin.scalar(text("SELECT VERSION()"))):
            pytest.skip("MariaDB has no caching_sha2_password: `make test-mysql9` brings a server that has")
        await admin.execute(text(f"CREATE USER '{name}'@'%' IDENTIFIED WITH caching_sha2_password BY '{password}'"))
        await admin.execute(text(f"GRANT ALL ON {mysql.database}.* TO '{name}'@'%'"))
        await admin.execute(text("FLUSH PRIVILEGES"))  # empties the cache, as a restart does
    async with opened(mysql.set(username=name, password=password)) as store:
        await store.check()


async def test_what_a_vanished_machine_holds_is_let_go_in_a_minute(mysql: URL) -> None:
    """The server ends a connection that says nothing; ours are renewed before that."""
    async with opened(mysql, pool_size=1) as store:
        async with store._connections._engine.connect() as db:
            assert await db.scalar(text("SELECT @@session.wait_timeout")) == 60
        assert store._connections._engine.pool._recycle < 60
