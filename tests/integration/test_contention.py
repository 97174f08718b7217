"""One user who does everything at once: what is frequent locks rows in one order, so that nobody waits in a circle."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from chatassist.adapters.persistence import sql
from chatassist.adapters.persistence.ephemeral import EphemeralStore
from chatassist.adapters.persistence.failures import code_of, is_repeatable
from chatassist.adapters.persistence.places import OwnPlaces
from chatassist.domain.model import Session
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.prompt import PromptRules
from chatassist.domain.replies.claiming import Claims
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import Draft, Feedback, Rating, Usage
from tests.builders import NOW, a_session, a_user, an_end, new_id
from tests.fixtures.service import Person, Serve, data_of, settings_for
from tests.fixtures.streams import ask
from tests.integration.storing import keep, opened
from tests.unit.worlds import METERING

DEADLOCK = 1213


@pytest.fixture
def collisions(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """Count what the database refused because of somebody else's lock."""
    seen: Counter[Any] = Counter()

    def noted(error: DBAPIError | OSError) -> bool:
        seen[code_of(error) if isinstance(error, DBAPIError) else type(error)] += 1
        return is_repeatable(error)

    monkeypatch.setattr(sql, "is_repeatable", noted)
    return seen


async def test_turns_of_one_user_never_wait_in_a_circle(mysql: URL, collisions: Counter[Any]) -> None:
    """Claims, ends and ratings in three sessions: all of them change the same user, and the same day."""
    user = a_user()
    sessions = [a_session(user) for _ in range(3)]
    async with opened(mysql, pool_size=12) as store:
        await keep(store, user, *sessions)
        runtime = Runtime(lambda: NOW, new_id)
        claims = Claims(
            Stores(store, EphemeralStore(lambda: NOW), OwnPlaces()), runtime, rules=PromptRules(), metering=METERING
        )

        async def talk(session: Session) -> None:
            for _ in range(25):
                accepted = await claims.saved(user, Draft(text="hello", session_id=session.id)).make("instance-1")
                reply_id, end = accepted.turn.reply.id, an_end(usage=Usage(input_tokens=1, output_tokens=1))
                assert await store.apply(
                    lambda tx, r=reply_id, m=accepted.meter, e=end: tx.replies.finish(r, 0, e, meter=m)  # type: ignore[misc]
                )
                await store.write(lambda tx, r=reply_id: _rate(tx, session, r))  # type: ignore[misc]

        async with asyncio.TaskGroup() as group:
            for session in sessions * 4:
                group.create_task(talk(session))
        assert collisions[DEADLOCK] == 0
        assert (await store.read(lambda tx: tx.sessions.get(sessions[0].id, user.id))).turns == 100


async def _rate(tx: Transaction, session: Session, reply_id: str) -> None:
    await tx.sessions.hold(session.id, session.user_id)
    await tx.replies.rate(reply_id, Feedback(rating=Rating.LIKE))


ACTIONS = {"send": 8, "open": 1, "rate": 3, "regenerate": 2, "stop": 1, "delete": 2}
"""What a hasty user with several devices does, and how often."""


async def act(person: Person, sessions: list[str], replies: list[str], dice: random.Random) -> str:
    """Do something with one of a user's sessions, and return how it went."""
    session, reply = dice.choice(sessions), dice.choice(replies[-20:])
    match what := dice.choices(list(ACTIONS), list(ACTIONS.values()))[0]:
        case "send" | "open":
            answer = await person.send("hello", sessionId=session if what == "send" else "")
            replies.append(data_of(answer)["messageId"])
        case "rate":
            rating = dice.choice(("like", "dislike", None))
            answer = await ask(person, reply, "feedback", "PUT", json={"rating": rating})
        case "stop" | "regenerate":
            answer = await ask(person, reply, what)
        case _:
            answer = await ask(person, reply, method="DELETE")
    return answer.json().get("reason") or "done"


async def test_one_user_who_does_everything_at_once_is_served(
    mysql: URL, serve: Serve, collisions: Counter[Any]
) -> None:
    """A deletion locks a session, then its messages, an end the other way round: they may collide, and are repeated."""
    dice = random.Random(1)  # noqa: S311 - no secret
    person = await (await serve(settings_for(mysql))).login()
    first = [await person.says("hello") for _ in range(3)]
    sessions, replies = [sent["sessionId"] for sent in first], [sent["messageId"] for sent in first]
    outcomes: Counter[str] = Counter()

    async def hurry() -> None:
        for _ in range(40):
            outcomes[await act(person, sessions, replies, dice)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(hurry())
    assert not outcomes.keys() & {"database_unavailable", "internal", "reply_not_stored"}, outcomes
    assert outcomes["done"] > 160
    assert collisions[DEADLOCK] <= 5, collisions
