"""Sending messages and looking at their replies: accepted exactly once, in order, and nothing stored when refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.domain.errors import (
    ChatAssistError,
    ContentBlocked,
    ContentEmpty,
    ContentTooLong,
    IdempotencyMismatch,
    LlmUnavailable,
    MessageNotFound,
    ModelUnknown,
    SessionNotFound,
    ShuttingDown,
    StoreUnavailable,
    TooManyReads,
    TooManySends,
)
from chatassist.domain.model import User
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.prompt import PromptRules
from chatassist.domain.replies.claiming import Claims
from chatassist.domain.replies.gate import Gate, MessageRules
from chatassist.domain.services.messages import MessageService, Sent
from chatassist.domain.turns import Draft, FinishReason, Status, Turn
from tests.builders import new_id
from tests.unit.worlds import METERING, REFUSAL, Fault, World, until

KEY = "key-1"
UNKNOWN = "01a20fcf0a6d708ea69a3a6bc76002ce"
"""A session that nobody has; always the same, so that tests keep their names."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(models={"large", "small"}, refused_words=["forbidden"]) as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


@pytest.fixture
async def boris(world: World) -> User:
    return await world.somebody("boris")


def heard(world: World, call: int = -1) -> list[str]:
    """What the vendor was given."""
    return [one.content for one in world.vendor.prompts[call].utterances]


async def session_of(world: World, user: User, session_id: str) -> tuple[int, list[str]]:
    """The number of turns ever accepted in a session, and what the user said in them, in order."""
    session, turns = await world.sessions.latest(user, session_id)
    return session.turns, [turn.message.content for turn in turns]


# --- A turn ---------------------------------------------------------------------------------------------------------


async def test_a_send_opens_a_session_and_its_reply_is_stored(world: World, anna: User) -> None:
    sent = await world.send(anna, "  hello  ")

    assert not sent.replayed
    turn = await world.end_of(sent.turn)
    assert (turn.message.content, turn.message.position, turn.message.user_id) == ("hello", 1, anna.id)
    assert (turn.reply.content, turn.reply.status, turn.reply.finish_reason) == ("an answer", "complete", "stop")
    assert turn.reply.model == "scripted"
    assert len({turn.message.id, turn.message.session_id, turn.reply.id}) == 3
    assert await world.kept(turn) == turn
    assert await session_of(world, anna, turn.message.session_id) == (1, ["hello"])


async def test_every_send_without_a_session_opens_another_one(world: World, anna: User) -> None:
    first, second = await world.ask(anna), await world.ask(anna, session_id="")

    assert first.message.session_id != second.message.session_id
    assert heard(world) == ["a question"]


async def test_the_turn_is_stored_before_the_vendor_is_called(world: World, anna: User) -> None:
    seen: list[Turn | None] = []
    tables = world.store.inner

    def look() -> None:
        reading = tables.read(lambda tx: tx.turns.find_by_key(KEY, anna.id))
        try:
            reading.send(None)  # the memory store never waits in a read
        except StopIteration as found:
            seen.append(found.value)

    world.vendor.while_speaking = look
    turn = await world.ask(anna, "hello", key=KEY)

    assert seen[0]
    assert (seen[0].message, seen[0].reply.status) == (turn.message, Status.RUNNING)


async def test_no_unit_of_work_is_open_while_the_model_speaks(world: World, anna: User) -> None:
    open_units: list[int] = []
    world.vendor.while_speaking = lambda: open_units.append(world.store.open_units)
    world.vendor.script = plays("one", "two", "three")

    turn = await world.ask(anna)
    await world.ask(anna, session_id=turn.message.session_id)

    assert open_units == [0] * 8


async def test_a_turn_costs_one_unit_to_claim_and_one_to_end(world: World, anna: User) -> None:
    await world.ask(anna)  # makes the lease, too
    before = world.store.written

    await world.ask(anna)

    assert world.store.written - before == 2


async def test_a_session_goes_on_with_what_was_said_in_it(world: World, anna: User) -> None:
    session = (await world.ask(anna, "one")).message.session_id
    world.vendor.script = plays("second answer")
    await world.ask(anna, "two", session_id=session)

    turn = await world.ask(anna, "three", session_id=session)

    assert heard(world) == ["one", "an answer", "two", "second answer", "three"]
    assert turn.message.position == 3
    assert await session_of(world, anna, session) == (3, ["one", "two", "three"])


async def test_the_operators_prompt_and_the_chosen_model_go_with_it() -> None:
    async with World(prompt=PromptRules(system="be kind"), models={"large"}) as world:
        turn = await world.ask(await world.somebody(), "hello", model="large")

        assert heard(world) == ["be kind", "hello"]
        assert world.vendor.prompts[0].model == "large"
        assert turn.reply.requested_model == "large"


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["half", LlmUnavailable()], Status.FAILED),
        ([Chunk(finish_reason=FinishReason.BLOCKED)], Status.COMPLETE),
    ],
    ids=["failed", "blocked"],
)
async def test_a_turn_that_failed_or_was_blocked_stays_and_enters_no_later_prompt(
    world: World, anna: User, steps: list[str | Chunk | Exception], status: Status
) -> None:
    session = (await world.ask(anna, "one")).message.session_id
    world.vendor.script = plays(*steps)
    assert (await world.ask(anna, "two", session_id=session)).reply.status is status
    world.vendor.script = plays("third answer")

    await world.ask(anna, "three", session_id=session)

    assert heard(world) == ["one", "an answer", "three"]
    assert await session_of(world, anna, session) == (3, ["one", "two", "three"])


async def test_two_sends_at_once_in_a_session_both_run_and_know_nothing_of_each_other(world: World, anna: User) -> None:
    session = (await world.ask(anna, "one")).message.session_id
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on, " and half")

    sent = await asyncio.gather(*(world.send(anna, text, session_id=session) for text in ("two", "three")))

    await until(lambda: world.vendor.speaking == 2)
    go_on.set()
    turns = [await world.end_of(each.turn) for each in sent]
    assert sorted(turn.message.position for turn in turns) == [2, 3]
    assert [turn.reply.content for turn in turns] == ["half and half"] * 2
    assert sorted(heard(world, call)[-1] for call in (-1, -2)) == ["three", "two"]
    assert heard(world, -1)[:-1] == heard(world, -2)[:-1] == ["one", "an answer"]


async def test_a_turn_of_higher_position_that_ends_first_is_no_context_for_a_lower_one(
    world: World, anna: User
) -> None:
    session = (await world.ask(anna, "one")).message.session_id
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)
    second = asyncio.create_task(world.send(anna, "two", session_id=session))
    await until(lambda: not world.store.faults)
    world.store.away = True  # its claim is committed, but it cannot look for it yet
    async with World(beside=world) as elsewhere:
        third = await elsewhere.ask(anna, "three", session_id=session)
        assert (third.message.position, third.speaks) == (3, True)
    world.store.away = False

    turn = await world.end_of((await second).turn)

    assert turn.message.position == 2
    assert heard(world) == ["one", "an answer", "two"]


# --- Sends that are refused -----------------------------------------------------------------------------------------


async def nothing_happened(world: World, user: User, session: str | None = None) -> None:
    assert world.vendor.prompts == []
    assert await world.store.read(lambda tx: tx.turns.find_by_key(KEY, user.id)) is None
    if session:
        assert (await world.store.inner.read(lambda tx: tx.turns.window(session, 9))).accepted == 1


@pytest.mark.parametrize("session_id", [UNKNOWN, "not an id", "0" * 31, "' or 1=1 --"])
async def test_a_session_that_does_not_exist_is_not_found(world: World, anna: User, session_id: str) -> None:
    with pytest.raises(SessionNotFound):
        await world.send(anna, session_id=session_id, key=KEY)

    await nothing_happened(world, anna)


async def test_another_users_session_is_not_found_and_does_not_change(world: World, anna: User, boris: User) -> None:
    session = (await world.ask(boris)).message.session_id
    world.vendor.prompts.clear()

    with pytest.raises(SessionNotFound):
        await world.send(anna, session_id=session, key=KEY)
    with pytest.raises(SessionNotFound):
        await world.sessions.latest(anna, session)

    await nothing_happened(world, anna, session)


async def test_a_session_of_no_shape_is_not_looked_for(world: World, anna: User) -> None:
    with pytest.raises(SessionNotFound):
        await world.sessions.latest(anna, "nonsense")


async def test_a_model_that_is_not_on_the_list_is_unknown(world: World, anna: User) -> None:
    with pytest.raises(ModelUnknown):
        await world.send(anna, model="gigantic", key=KEY)

    await nothing_happened(world, anna)


@pytest.mark.parametrize(("text", "error"), [(" ", ContentEmpty), ("x" * 101, ContentTooLong)])
async def test_a_draft_is_checked_before_anything_else(
    world: World, anna: User, text: str, error: type[ChatAssistError]
) -> None:
    with pytest.raises(error):
        await world.send(anna, text, key=KEY)

    assert world.moderator.asked == []
    await nothing_happened(world, anna)


async def test_what_the_moderator_refuses_is_not_stored_and_claims_no_key(world: World, anna: User) -> None:
    with pytest.raises(ContentBlocked):
        await world.send(anna, "a forbidden word", key=KEY)
    await nothing_happened(world, anna)

    assert world.moderator.asked == [("a forbidden word", anna.openid)]
    assert (await world.ask(anna, "a decent word", key=KEY)).reply.status is Status.COMPLETE


async def test_the_21st_send_within_a_minute_is_too_many() -> None:
    async with World(limits={Rule.SENDS: 20}) as world:
        anna, boris = await world.somebody("anna"), await world.somebody("boris")
        for _ in range(20):
            await world.send(anna)

        with pytest.raises(TooManySends) as refused:
            await world.send(anna, key=KEY)

        await until(lambda: world.vendor.closed == 20)
        assert len(world.vendor.prompts) == len(world.moderator.asked) == 20
        await world.send(boris)  # limits are per user
        world.clock.advance(refused.value.retry_after or 0)
        assert not (await world.send(anna, key=KEY)).replayed  # the refused send claimed nothing


async def test_no_send_is_taken_while_the_process_drains_but_a_repeated_one_is_answered(
    world: World, anna: User
) -> None:
    first = await world.ask(anna, key=KEY)
    await world.services.check()
    await world.services.drain(0)

    with pytest.raises(ShuttingDown):
        await world.send(anna)
    with pytest.raises(ShuttingDown):
        await world.services.check()

    assert (await world.send(anna, key=KEY)).turn == first
    assert len(world.moderator.asked) == 1  # that of the first send


# --- Exactly once ---------------------------------------------------------------------------------------------------


async def test_a_finished_turn_is_replayed_without_limit_moderation_or_vendor() -> None:
    async with World(limits={Rule.SENDS: 1}) as world:
        anna = await world.somebody()
        first = await world.ask(anna, key=KEY)

        for _ in range(5):
            assert await world.send(anna, key=KEY) == Sent(turn=first, replayed=True)

        assert (len(world.vendor.prompts), len(world.moderator.asked)) == (1, 1)


async def test_a_failed_turn_is_begun_again_under_its_own_ids(world: World, anna: User) -> None:
    world.vendor.script = plays("half", LlmUnavailable())
    failed = await world.ask(anna, key=KEY)
    world.vendor.script = plays("whole")

    sent = await world.send(anna, key=KEY)

    assert not sent.replayed
    assert (sent.turn.message, sent.turn.reply.id) == (failed.message, failed.reply.id)
    turn = await world.end_of(sent.turn)
    assert (turn.reply.status, turn.reply.content, turn.reply.attempt) == ("complete", "whole", 1)
    assert turn == await world.kept(turn)
    assert heard(world) == ["a question"]


async def test_a_send_attaches_to_its_running_turn(world: World, anna: User) -> None:
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on, " and half")
    first = await world.send(anna, key=KEY)

    second = await world.send(anna, key=KEY)

    assert second.replayed
    go_on.set()
    assert await world.end_of(second.turn) == await world.end_of(first.turn)
    assert len(world.vendor.prompts) == 1


async def test_sends_at_once_with_one_key_are_one_turn(world: World, anna: User) -> None:
    sent = await asyncio.gather(*(world.send(anna, key=KEY) for _ in range(20)))

    turns = [await world.end_of(each.turn) for each in sent]
    assert sorted(each.replayed for each in sent) == [False] + [True] * 19
    assert all(turn == turns[0] for turn in turns)
    assert turns[0].reply.content == "an answer"
    assert len(world.vendor.prompts) == 1
    assert await session_of(world, anna, turns[0].message.session_id) == (1, ["a question"])


@pytest.mark.parametrize("steps", range(16))
async def test_a_retry_waits_for_the_end_however_soon_it_comes(world: World, anna: User, steps: int) -> None:
    """Between the claim's COMMIT and the opening of the feed, too."""
    go_on = asyncio.Event()
    world.vendor.script = plays(go_on, "late")
    await world.lease.ensure()
    first = asyncio.create_task(world.send(anna, key=KEY))
    for _ in range(steps):
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.005, go_on.set)

    turn = await world.ask(anna, key=KEY)

    assert (turn.reply.status, turn.reply.content) == (Status.COMPLETE, "late")
    assert (await first).turn.reply.id == turn.reply.id


async def test_a_key_belongs_to_its_user(world: World, anna: User, boris: User) -> None:
    turns = [await world.ask(user, key=KEY) for user in (anna, boris)]

    assert turns[0].reply.id != turns[1].reply.id
    assert len(world.vendor.prompts) == 2


async def test_without_a_key_every_send_is_a_new_turn(world: World, anna: User) -> None:
    assert (await world.ask(anna)).reply.id != (await world.ask(anna)).reply.id


@pytest.mark.parametrize("opened", [True, False], ids=["first opened the session", "first named the session"])
@pytest.mark.parametrize("names", ["the same session", "no session", "an empty session"])
async def test_a_repeated_send_may_leave_out_the_session_it_opened(
    world: World, anna: User, opened: bool, names: str
) -> None:
    before = None if opened else (await world.ask(anna)).message.session_id
    first = await world.ask(anna, key=KEY, session_id=before, model="large")
    named = {"the same session": first.message.session_id, "no session": None, "an empty session": ""}[names]

    again = world.send(anna, " a question\n", key=KEY, session_id=named, model="large")

    if opened or names == "the same session":
        assert (await again).turn == first
    else:
        with pytest.raises(IdempotencyMismatch):
            await again


@pytest.mark.parametrize(
    "other",
    [
        {"text": "another question"},
        {"model": "large"},
        {"model": ""},
        {"model": "never heard of"},
        {"session_id": UNKNOWN},
        {"session_id": "no session at all"},
    ],
    ids=str,
)
async def test_a_key_used_for_something_else_is_a_mismatch(world: World, anna: User, other: dict[str, str]) -> None:
    await world.ask(anna, key=KEY, model="small")

    with pytest.raises(IdempotencyMismatch):
        await world.send(anna, **{"text": "a question", "key": KEY, "model": "small", **other})

    assert len(world.vendor.prompts) == 1


async def test_a_turn_is_replayed_although_its_model_was_taken_off_the_list(world: World, anna: User) -> None:
    async with World(beside=world, models={"large"}) as before:
        first = await before.ask(anna, key=KEY, model="large")
    async with World(beside=world, models={"huge"}) as after:
        assert (await after.send(anna, key=KEY, model="large")).turn == first


async def test_a_mismatch_is_told_to_the_loser_of_a_race_too(world: World, anna: User) -> None:
    outcomes = await asyncio.gather(
        *(world.send(anna, text, key=KEY) for text in ("one", "two")), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["IdempotencyMismatch", "Sent"]


async def test_a_key_that_is_taken_by_a_turn_that_cannot_be_read_is_no_answer(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.ask(anna, key=KEY)
    turns = type((await world.store.read(_itself)).turns)

    async def blind(*_: object) -> None:
        return None

    monkeypatch.setattr(turns, "find_by_key", blind)
    with pytest.raises(StoreUnavailable):
        await world.send(anna, key=KEY)


async def _itself(tx: Transaction) -> Transaction:
    return tx


@pytest.mark.parametrize("steps", range(12))
async def test_a_caller_who_goes_away_at_any_moment_leaves_a_turn_that_is_finished_or_none_at_all(
    world: World, anna: User, steps: int
) -> None:
    sending = asyncio.create_task(world.send(anna, key=KEY))
    for _ in range(steps):
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    turn = await world.ask(anna, key=KEY)

    assert (turn.reply.status, turn.reply.content) == (Status.COMPLETE, "an answer")
    assert len(world.vendor.prompts) == 1
    assert await world.kept(turn) == turn


async def test_a_caller_who_goes_away_right_after_the_claim_loses_nothing(world: World, anna: User) -> None:
    go_on = asyncio.Event()
    world.vendor.script = plays("an ", go_on, "answer")
    sending = asyncio.create_task(world.send(anna, key=KEY))
    await until(lambda: world.vendor.speaking)
    sending.cancel()
    go_on.set()
    await asyncio.gather(sending, return_exceptions=True)
    await until(lambda: not world.vendor.speaking)

    assert (await world.ask(anna, key=KEY)).reply.content == "an answer"


# --- Looking at a reply ---------------------------------------------------------------------------------------------


async def test_settling_hands_over_a_running_turn_with_the_text_so_far(world: World, anna: User) -> None:
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on, " and half")
    sent = await world.send(anna)
    await until(lambda: world.vendor.speaking)

    turn = await world.messages.settle(sent.turn, 0.01)

    assert (turn.reply.status, turn.reply.content) == (Status.RUNNING, "half")
    go_on.set()
    assert (await world.end_of(turn)).reply.content == "half and half"


async def test_a_settled_turn_is_settled_without_looking(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    world.store.away = True

    assert await world.messages.settle(turn, 0) is turn


async def test_a_reply_is_shown_while_it_grows_and_after_its_end(world: World, anna: User) -> None:
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on, " and half")
    sent = await world.send(anna)
    await until(lambda: world.vendor.speaking)
    await asyncio.sleep(0)

    growing = await world.get(anna, sent.turn.reply.id)

    assert (growing.reply.status, growing.reply.content) == (Status.RUNNING, "half")
    go_on.set()
    ended = await world.end_of(growing)
    assert await world.get(anna, sent.turn.reply.id) == ended


async def test_a_blocked_reply_is_shown_as_its_refusal(world: World, anna: User) -> None:
    world.vendor.script = plays("some of it", Chunk(finish_reason=FinishReason.BLOCKED))
    turn = await world.ask(anna)

    assert (await world.get(anna, turn.reply.id)).reply.content == REFUSAL


async def test_the_events_of_a_turn_tell_its_whole_reply(world: World, anna: User) -> None:
    sent = await world.send(anna)

    events = await world.events(sent.turn)

    assert [type(event).__name__ for event in events] == ["Delta", "Ended"]


async def test_what_is_not_a_reply_of_the_user_is_not_found(world: World, anna: User, boris: User) -> None:
    turn = await world.ask(boris)
    for reply_id in (turn.reply.id, turn.message.id, turn.message.session_id, new_id(), "garbage", ""):
        with pytest.raises(MessageNotFound):
            await world.get(anna, reply_id)
    with pytest.raises(MessageNotFound):  # a question is not a reply, not even one's own
        await world.get(boris, turn.message.id)


async def test_reading_is_limited_per_user() -> None:
    async with World(limits={Rule.READS: 1}) as world:
        anna, boris = await world.somebody("anna"), await world.somebody("boris")
        turn = await world.ask(anna)
        await world.get(anna, turn.reply.id)

        with pytest.raises(TooManyReads):
            await world.get(anna, turn.reply.id)
        with pytest.raises(MessageNotFound):
            await world.get(boris, turn.reply.id)


async def test_a_sessions_latest_turns_are_the_youngest_oldest_first(world: World, anna: User) -> None:
    session = (await world.ask(anna, "one")).message.session_id
    turns = [await world.ask(anna, text, session_id=session) for text in ("two", "three")]

    found, latest = await world.sessions.latest(anna, session, limit=2)

    assert list(latest) == turns
    assert replace(found, turns=3) == found


async def test_a_send_over_the_limit_attaches_to_what_another_instance_accepted_meanwhile(
    world: World, anna: User
) -> None:
    """The key is looked up, then counted; in between, the same send may have been accepted elsewhere."""
    async with World(beside=world) as elsewhere:

        class FullSinceThen(Limiter):
            async def hit(self, rule: Rule, subject: str) -> None:
                await elsewhere.ask(anna, key="same")
                raise TooManySends

        service = MessageService(
            world.stores,
            world.engine,
            world.follower,
            gate=Gate(FullSinceThen(), world.moderator, world.vendor, MessageRules()),
            claims=Claims(world.stores, Runtime(world.clock, world.ids), rules=PromptRules(), metering=METERING),
        )
        assert (await service.send(anna, Draft(text="a question", key="same"))).replayed
        with pytest.raises(TooManySends):
            await service.send(anna, Draft(text="another", key="other"))
