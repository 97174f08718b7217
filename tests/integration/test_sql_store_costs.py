"""What a turn costs the database: how many statements, and what they have to look at."""

from datetime import date
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status, Usage
from chatassist.domain.usage import Meter, Used
from tests.builders import NOW, a_login, a_save, a_session, a_turn, a_user, an_end, new_id
from tests.fixtures.service import Serve, settings_for
from tests.integration.explaining import explaining
from tests.integration.storing import connected, opened

METER = Meter(subject="somebody", day=date(2026, 11, 22))


async def everything_of_a_turn(tx: Transaction) -> None:
    user = a_user()
    login, session = a_login(user), a_session(user)
    turn = a_turn(session, 61, key="key")
    await tx.users.add(user)
    await tx.logins.add(login)
    await tx.sessions.add(session)
    for position in range(1, 61):
        await tx.turns.add(a_turn(session, position, status=Status.COMPLETE, content="x"))
    await tx.logins.find(login.id)
    await tx.users.find(user.openid)
    await tx.sessions.touch(session.id, user.id, NOW)
    await tx.sessions.hold(session.id, user.id)
    await tx.sessions.entitle(session.id, "a title")
    await tx.users.revise(user.id)
    await tx.usages.count(METER, Used(messages=1))
    await tx.sessions.touch(session.id, user.id, NOW, meter=METER)
    await tx.usages.find(METER)
    await tx.turns.window(session.id, 10)
    await tx.turns.window(session.id, 10, before=30)
    await tx.turns.latest(session.id, 10)
    await tx.turns.versions(session.id, 60)
    await tx.turns.last_position(session.id)
    await tx.turns.add(turn)
    await tx.turns.find(turn.reply.id, user.id)
    await tx.turns.find_settled(turn.reply.id, user.id)
    await tx.turns.find_by_key("key", user.id)
    await tx.replies.running("instance-1")
    await tx.replies.save([a_save(turn), a_save(a_turn(session))])
    await tx.replies.rate(turn.reply.id, None)
    await tx.replies.finish(turn.reply.id, 0, an_end(usage=Usage(input_tokens=1, output_tokens=1)), meter=METER)
    await tx.replies.finish(turn.reply.id, 0, an_end())
    await tx.replies.restart(turn.reply.id, 0, "instance-1")
    await tx.replies.finish_orphans(NOW, an_end(None))
    await tx.turns.delete(session.id, 59, NOW)
    await tx.turns.purge(NOW)
    await tx.logins.end(new_id())
    await tx.logins.end_all(new_id())


OF_A_TURN = 33
"""Statements above that read or change: six of them delete a turn."""


async def test_the_statements_of_a_turn_use_indexes_and_sort_nothing(
    mysql: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with explaining(mysql, monkeypatch) as explained:
        assert await explained(everything_of_a_turn) == OF_A_TURN


async def test_a_turn_is_stored_by_one_statement(mysql: URL) -> None:
    async with opened(mysql, pool_size=1) as store:

        async def inserts(tx: Any) -> int:
            counted = await tx.turns._db.exec_driver_sql("SHOW SESSION STATUS LIKE 'Com_insert'")
            return int(counted.mappings().one()["Value"])

        before = await store.read(inserts)
        await store.write(lambda tx: tx.turns.add(a_turn(a_session(a_user()), key=new_id())))
        assert await store.read(inserts) == before + 1


async def test_a_turn_takes_seven_round_trips(mysql: URL, serve: Serve) -> None:
    """Who calls, BEGIN, touch, window, insert, COMMIT, end: nothing of restarts, versions and use adds to it."""
    api = await serve(settings_for(mysql))
    person = await api.login()
    session = (await person.says("first"))["sessionId"]
    async with connected(mysql) as db:

        async def questions() -> int:
            counted = await db.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Questions'")
            return int(counted.mappings().one()["Value"])

        before = await questions()
        alone = await questions() - before
        least = []
        for number in range(5):  # jobs of the service ask as well, now and then
            before = await questions()
            await person.says(f"again {number}", sessionId=session)
            least.append(await questions() - before - alone)
        assert min(least) == 7
