"""The floor of the yardstick must do the outside work of the service: else its ratio says nothing."""

from datetime import date
from typing import Any

from sqlalchemy import URL, select

from benchmarks.floor_store import Ask, Said, open_store
from chatassist.adapters.persistence.tables import MESSAGES, SESSIONS, USAGE_DAYS, USERS
from chatassist.domain.model import Session
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Usage
from chatassist.domain.usage import Meter, Used
from tests.builders import NOW, a_session, a_turn, a_user, an_end, new_id
from tests.integration.storing import keep, opened

QUESTION, ANSWER = "  a question\nin two lines ", "an answer " * 20
DAY = date(2026, 11, 22)
AT = NOW.strftime("%Y-%m-%d %H:%M:%S.%f")
ITS_OWN = ("id", "session_id", "user_id", "openid", "subject", "instance_id")


async def test_a_turn_of_the_floor_leaves_the_rows_that_one_of_the_service_leaves(any_database: URL) -> None:
    left = {}
    for subject, turn in (("service", by_the_service), ("floor", by_the_floor)):
        session = a_session(a_user(), turns=3, messages=6, title="a title", preview="before")
        await turn(any_database, session, subject)
        left[subject] = await everything_of(any_database, session, subject)
    assert left["floor"] == left["service"]
    assert len(left["floor"]) == 5


async def by_the_service(database: URL, session: Session, subject: str) -> None:
    meter = Meter(subject=subject, day=DAY)
    turn = a_turn(session, 4, text=QUESTION)

    async def claim(tx: Transaction) -> None:
        await tx.sessions.touch(session.id, session.user_id, NOW, said=QUESTION)
        await tx.turns.window(session.id, 50)
        await tx.turns.add(turn)
        await tx.usages.count(meter, Used(messages=1))

    async with opened(database, pool_size=1) as store:
        await begin(database, session, subject)
        await store.write(claim)
        end = an_end(ANSWER, seq=21, model="bench", usage=Usage(input_tokens=7, output_tokens=5))
        assert await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 0, end, meter=meter))


async def by_the_floor(database: URL, session: Session, subject: str) -> None:
    store = open_store(database, 1)
    instance_id = new_id()
    ask = Ask(
        user_id=session.user_id,
        session_id=session.id,
        message_id=new_id(),
        reply_id=new_id(),
        instance_id=instance_id,
        text=QUESTION,
        at=AT,
        subject=subject,
        day=DAY.isoformat(),
    )
    await begin(database, session, subject)
    await store.open(instance_id)
    await store.claim(ask)
    assert await store.finish(ask, Said("stop", ANSWER, "bench", (7, 5), AT, 21))
    await store.close()


async def begin(database: URL, session: Session, subject: str) -> None:
    """Keep a user, his session and what he used today."""
    async with opened(database, pool_size=1) as store:
        await keep(store, a_user(id=session.user_id), session)
        await store.write(lambda tx: tx.usages.count(Meter(subject=subject, day=DAY), Used(messages=1)))


async def everything_of(database: URL, session: Session, subject: str) -> list[Any]:
    """Return what is kept of a user, but for what is anybody's own."""
    where = (
        (SESSIONS, SESSIONS.c.id == session.id),
        (USERS, USERS.c.id == session.user_id),
        (USAGE_DAYS, USAGE_DAYS.c.subject == subject),
        (MESSAGES, MESSAGES.c.session_id == session.id),
    )
    kept: list[Any] = []
    async with opened(database, pool_size=1) as store, store._connections._engine.connect() as db:
        for table, found in where:
            columns = [column for column in table.c if column.name not in ITS_OWN]
            chosen = select(*columns).where(found).order_by(*(column for column in columns if column.name == "version"))
            kept += [row._asdict() for row in await db.execute(chosen)]
    return kept
