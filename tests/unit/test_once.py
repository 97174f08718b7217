"""Exactly once, sentence by sentence of the contract, in one process and in two beside each other."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.domain.errors import (
    ContentBlocked,
    IdempotencyMismatch,
    LlmUnavailable,
    MessageNotFound,
    ModelUnknown,
    SessionNotFound,
    ShuttingDown,
    StoreUnavailable,
    TooManySends,
)
from chatassist.domain.model import User
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.replies import claims
from chatassist.domain.services.messages import Sent
from chatassist.domain.turns import Status, Turn
from tests.builders import new_id
from tests.unit.worlds import Fault, World, until

KEY = "key-1"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(models={"large", "small"}, refused_words=["forbidden"]) as world:
        yield world


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[World]:
    """Another process on the same database."""
    async with World(beside=world, models={"large", "small"}) as elsewhere:
        await elsewhere.lease.ensure()
        await world.lease.ensure()
        yield elsewhere


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


def calls(*worlds: World) -> int:
    return sum(len(world.vendor.prompts) for world in worlds)


async def failed(world: World, user: User, *steps: Step) -> Turn:
    """A turn under the key whose reply failed."""
    script, world.vendor.script = world.vendor.script, plays(*steps, LlmUnavailable())
    turn = await world.ask(user, key=KEY)
    world.vendor.script = script
    assert turn.reply.status is Status.FAILED
    return turn


# --- One turn, one vendor call, one answer --------------------------------------------------------------------------


@pytest.mark.parametrize("session", ["a new session", "a known session"])
async def test_sends_at_once_in_two_processes_are_one_turn(
    world: World, elsewhere: World, anna: User, session: str
) -> None:
    known = (await world.ask(anna, "before")).message.session_id if session == "a known session" else None
    before = calls(world)

    sent = await asyncio.gather(
        *(each.send(anna, key=KEY, session_id=known) for each in (world, elsewhere) for _ in range(5))
    )

    assert sorted(each.replayed for each in sent) == [False] + [True] * 9
    assert len({each.turn.reply.id for each in sent}) == 1
    assert calls(world, elsewhere) == before + 1
    turn = await world.end_of(sent[0].turn)
    assert turn.reply.content == "an answer"
    assert [await each.end_of(one.turn) for one in sent for each in (world, elsewhere)] == [turn] * 20
    found, turns = await world.sessions.latest(anna, turn.message.session_id)
    assert (found.turns, [one.message.content for one in turns]) == (
        (2, ["before", "a question"]) if known else (1, ["a question"])
    )


async def test_it_holds_for_another_process_while_the_reply_runs_and_when_it_is_over(
    world: World, elsewhere: World, anna: User
) -> None:
    world.vendor.script = plays("half", go_on := asyncio.Event(), " and half")
    first = (await world.send(anna, key=KEY)).turn

    running = await elsewhere.send(anna, key=KEY)
    go_on.set()
    ended = await world.end_of(first)

    assert (running.replayed, running.turn.reply.status) == (True, "running")
    assert await elsewhere.end_of(running.turn) == ended
    assert await elsewhere.send(anna, key=KEY) == Sent(turn=ended, replayed=True)
    assert calls(world, elsewhere) == 1


async def test_a_wish_waits_for_an_earlier_one_with_its_key_but_not_for_ever(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.messages, "_patience", 0.1)
    await world.lease.ensure()
    door = world.store.closed_door = asyncio.Event()
    first = asyncio.create_task(world.send(anna, key=KEY))
    refused = await asyncio.gather(*(world.send(anna, key=KEY) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in refused] == [StoreUnavailable] * 5
    world.store.closed_door = None
    door.set()
    assert not (await first).replayed
    assert (await world.send(anna, key=KEY)).replayed
    assert calls(world) == 1


async def test_attaching_and_replaying_cost_no_limit_no_moderation_and_no_vendor_call() -> None:
    async with World(limits={Rule.SENDS: 1}) as world:
        anna = await world.somebody("anna")
        world.vendor.script = plays("half", go_on := asyncio.Event())
        first = await world.send(anna, key=KEY)

        assert all([(await world.send(anna, key=KEY)).replayed for _ in range(5)])
        go_on.set()
        await world.end_of(first.turn)
        assert all([(await world.send(anna, key=KEY)).replayed for _ in range(5)])

        assert (len(world.moderator.asked), calls(world)) == (1, 1)
        with pytest.raises(TooManySends):
            await world.send(anna, key="another")


async def test_the_key_is_looked_up_before_anything_is_refused(world: World, anna: User) -> None:
    """What was accepted stays accepted, even if it would be refused by now."""
    turn = await world.ask(anna, key=KEY, model="large")
    world.gate._rules = replace(world.gate._rules, models=())
    world.moderator._refused = ("question",)

    assert await world.send(anna, key=KEY, model="large") == Sent(turn=turn, replayed=True)


@pytest.mark.parametrize(
    ("draft", "error"),
    [
        ({"text": "a forbidden word"}, ContentBlocked),
        ({"model": "gigantic"}, ModelUnknown),
        ({"session_id": new_id()}, SessionNotFound),
        ({"session_id": "nonsense"}, SessionNotFound),
    ],
)
async def test_a_send_that_was_refused_claims_nothing(
    world: World, anna: User, draft: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await world.send(anna, **{"text": "a question", "key": KEY, **draft})

    assert not (await world.send(anna, "something else", key=KEY)).replayed


async def test_a_send_over_the_limit_claims_nothing() -> None:
    async with World(limits={Rule.SENDS: 1}) as world:
        anna = await world.somebody("anna")
        await world.ask(anna)
        with pytest.raises(TooManySends):
            await world.send(anna, key=KEY)
        world.clock.advance(60)

        assert not (await world.send(anna, "something else", key=KEY)).replayed


# --- What is compared -----------------------------------------------------------------------------------------------


async def test_a_failed_or_running_turn_is_compared_as_a_finished_one_is(world: World, anna: User) -> None:
    await failed(world, anna)
    with pytest.raises(IdempotencyMismatch):
        await world.send(anna, "another", key=KEY)

    world.vendor.script = plays(asyncio.Event())
    await world.send(anna, key=KEY)
    with pytest.raises(IdempotencyMismatch):
        await world.send(anna, key=KEY, model="large")
    assert calls(world) == 2


async def test_a_mismatch_is_told_by_another_process_too(world: World, elsewhere: World, anna: User) -> None:
    outcomes = await asyncio.gather(
        world.send(anna, "one", key=KEY), elsewhere.send(anna, "two", key=KEY), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["IdempotencyMismatch", "Sent"]
    assert calls(world, elsewhere) == 1


async def test_header_and_body_aside_a_key_is_one_users_alone(world: World, elsewhere: World, anna: User) -> None:
    boris = await world.somebody("boris")

    turns = [await each.ask(user, key=KEY) for user, each in ((anna, world), (boris, elsewhere))]

    assert turns[0].reply.id != turns[1].reply.id


# --- A failed turn is begun again -----------------------------------------------------------------------------------


async def test_a_failed_turn_is_begun_again_under_its_own_ids_and_counts_as_a_send() -> None:
    async with World(limits={Rule.SENDS: 2}, script=plays("half", LlmUnavailable())) as world:
        anna = await world.somebody("anna")
        turn = await world.ask(anna, key=KEY)
        assert turn.reply.content == "half"

        again = await world.ask(anna, key=KEY)

        assert (again.message, again.reply.id, again.reply.attempt) == (turn.message, turn.reply.id, 1)
        assert (len(world.moderator.asked), calls(world)) == (2, 2)
        with pytest.raises(TooManySends):
            await world.send(anna, key=KEY)
        assert await world.kept(turn) == again
        world.clock.advance(60)
        world.vendor.script = plays("whole")
        whole = await world.ask(anna, key=KEY)
        assert (whole.reply.attempt, whole.reply.content, whole.reply.seq) == (2, "whole", 2_000_003)


async def test_nothing_of_the_failure_is_left_on_what_is_begun_again(world: World, anna: User) -> None:
    turn = await failed(world, anna, "half")
    world.vendor.script = plays(asyncio.Event())

    await world.send(anna, key=KEY)

    kept = await world.kept(turn)
    assert kept
    assert (kept.reply.status, kept.reply.content, kept.reply.reason, kept.reply.ended_at) == (
        "running",
        "",
        None,
        None,
    )
    assert kept.reply.seq == 1_000_000


async def test_it_is_asked_with_what_came_before_it_and_nothing_later(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "WINDOW_TURNS", 1)
    session = (await world.ask(anna, "one")).message.session_id
    world.vendor.script = plays(LlmUnavailable())
    await world.ask(anna, "two", session_id=session, key=KEY)
    world.vendor.script = plays("an answer")
    await world.ask(anna, "three", session_id=session)
    assert [one.content for one in world.vendor.prompts[-1].utterances] == ["one", "an answer", "three"]

    again = await world.ask(anna, "two", session_id=session, key=KEY)

    assert [one.content for one in world.vendor.prompts[-1].utterances] == ["one", "an answer", "two"]
    assert again.message.position == 2


@pytest.mark.parametrize("processes", [1, 2])
async def test_of_restarts_at_once_one_wins_and_the_others_attach(
    world: World, elsewhere: World, anna: User, processes: int
) -> None:
    turn = await failed(world, anna)
    world.vendor.script = elsewhere.vendor.script = plays("whole")

    sent = await asyncio.gather(
        *(each.send(anna, key=KEY) for each in (world, elsewhere)[:processes] for _ in range(5))
    )

    assert sorted(each.replayed for each in sent) == [False] + [True] * (5 * processes - 1)
    assert {(each.turn.reply.id, each.turn.reply.attempt) for each in sent} == {(turn.reply.id, 1)}
    assert calls(world, elsewhere) == 2
    assert (await world.end_of(sent[-1].turn)).reply.content == "whole"


async def test_one_that_another_process_begins_again_in_between_is_attached_to_even_over_the_limit(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failed(world, anna)
    async with World(beside=world, script=plays("whole")) as elsewhere:

        async def full_since_then(*_: object) -> None:
            await elsewhere.ask(anna, key=KEY)
            raise TooManySends

        monkeypatch.setattr(world.limiter, "hit", full_since_then)
        sent = await world.send(anna, key=KEY)

    assert (sent.replayed, sent.turn.reply.content) == (True, "whole")


async def test_what_is_refused_when_begun_again_stays_failed(world: World, anna: User) -> None:
    turn = await failed(world, anna)
    world.moderator._refused = ("question",)

    with pytest.raises(ContentBlocked):
        await world.send(anna, key=KEY)

    assert await world.kept(turn) == turn


@pytest.mark.parametrize("end", ["complete", "stopped"])
async def test_a_turn_that_ended_well_is_never_begun_again(world: World, anna: User, end: str) -> None:
    world.vendor.script = plays("text", go_on := asyncio.Event())
    turn = (await world.send(anna, key=KEY)).turn
    await until(lambda: world.vendor.speaking)
    go_on.set() if end == "complete" else await world.replies.stop(anna, turn.reply.id)
    ended = await world.end_of(turn)

    assert ended.reply.status == end
    assert await world.send(anna, key=KEY) == Sent(turn=ended, replayed=True)
    assert not await world.store.write(lambda tx: tx.replies.restart(turn.reply.id, 0, "any"))


async def test_a_process_that_drains_begins_nothing_again_and_counts_nothing(world: World, anna: User) -> None:
    turn = await failed(world, anna)
    world.moderator.asked.clear()
    await world.services.drain(0)

    for key in (KEY, "a-new-one"):
        with pytest.raises(ShuttingDown):
            await world.send(anna, key=key)

    assert world.moderator.asked == []
    assert await world.kept(turn) == turn


# --- A deleted turn's key -------------------------------------------------------------------------------------------


async def test_a_deleted_turns_key_is_spent_in_every_process_and_in_every_race(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await failed(world, anna)

    outcomes = await asyncio.gather(
        elsewhere.replies.delete(anna, turn.reply.id), world.send(anna, key=KEY), return_exceptions=True
    )

    assert outcomes[0] == 2
    assert isinstance(outcomes[1], Sent | MessageNotFound | SessionNotFound | StoreUnavailable)
    for each in (world, elsewhere):
        with pytest.raises(MessageNotFound):
            await each.send(anna, key=KEY)
    assert await world.kept(turn) is None


# --- The database fails at any step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST_AFTER_COMMIT, Fault.LOST_BEFORE_COMMIT, Fault.AWAY])
@pytest.mark.parametrize("units", range(4))
async def test_whatever_happens_to_any_unit_a_repeated_send_finds_one_finished_turn(
    world: World, anna: User, fault: Fault, units: int
) -> None:
    world.store.faults.extend([*[None] * units, fault])  # lease, claim, end
    for _ in range(2):
        await asyncio.gather(world.send(anna, key=KEY), return_exceptions=True)

    turn = await world.ask(anna, key=KEY)

    assert (turn.reply.status, turn.reply.content, turn.message.position) == ("complete", "an answer", 1)
    assert calls(world) == 1
    assert await world.kept(turn) == turn


async def test_away_means_no_answer_and_no_claim_wherever_it_is_met(world: World, anna: User) -> None:
    turn = await world.ask(anna, key=KEY)
    world.store.away = True

    for asking in (
        world.send(anna, key=KEY),
        world.send(anna, key="another"),
        world.send(anna),
        world.messages.regenerate(anna, turn.reply.id, key="yet-another"),
        world.replies.get(anna, turn.reply.id),
        world.replies.stop(anna, turn.reply.id),
        world.replies.delete(anna, turn.reply.id),
        world.replies.rate(anna, turn.reply.id, None),
        world.replies.follow(anna, turn.reply.id, 0),
    ):
        with pytest.raises(StoreUnavailable):
            await asking

    world.store.away = False
    assert calls(world) == 1
    assert await world.kept(turn) == turn

    async def count(tx: Transaction) -> int:
        return (await tx.sessions.get(turn.message.session_id, anna.id)).turns

    assert await world.store.read(count) == 1
