"""The reply engine: every reply ends exactly once, is stored before its end is told, and nothing is left behind."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.domain.errors import (
    ContextTooLong,
    LlmMisconfigured,
    LlmOverloaded,
    LlmTimeout,
    LlmUnavailable,
    ShuttingDown,
    StoreUnavailable,
)
from chatassist.domain.model import Prompt, User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.replies import Delta, Ended, Replace
from chatassist.domain.prompt import estimate_tokens
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import End, FinishReason, Reply, Status, Turn, Usage
from tests.builders import NOW, an_end
from tests.unit.worlds import REFUSAL, Fault, World, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


def outcome(reply: Reply) -> tuple[str, str | None, str | None, str]:
    return reply.status, reply.finish_reason, reply.reason, reply.content


async def stored(world: World, turn: Turn) -> tuple[str, str | None, str | None, str]:
    kept = await world.kept(turn)
    assert kept
    return outcome(kept.reply)


async def a_reply_under_way(world: World, *rest: Step, key: str | None = None) -> Turn:
    """Send a message; the vendor has said `half` and goes on with the rest."""
    world.vendor.script = plays("half", *rest)
    turn = (await world.send(await world.somebody("anna"), key=key)).turn
    await until(lambda: world.vendor.speaking)
    await asyncio.sleep(0)
    return turn


# --- How a reply ends -----------------------------------------------------------------------------------------------


def last(text: str = "", reason: FinishReason = FinishReason.STOP) -> Chunk:
    return Chunk(text=text, finish_reason=reason)


COMPLETE, FAILED = "complete", "failed"
BLOCKED = (COMPLETE, "blocked", None, REFUSAL)
ENDS: dict[str, tuple[list[Step], tuple[str, str, str | None, str]]] = {
    "stop": (["one ", "two"], (COMPLETE, "stop", None, "one two")),
    "stop with the last text": (["one ", last("two")], (COMPLETE, "stop", None, "one two")),
    "length, says the vendor": ([last("cut", FinishReason.LENGTH)], (COMPLETE, "length", None, "cut")),
    "length, within a piece": (["0123456", "789abc", "more"], (COMPLETE, "length", None, "0123456789")),
    "length, after a full piece": (["0123456789", "a"], (COMPLETE, "length", None, "0123456789")),
    "full to the last character": (["01234", "56789"], (COMPLETE, "stop", None, "0123456789")),
    "length, in code points": (["😀" * 11], (COMPLETE, "length", None, "😀" * 10)),
    "length, while it still thought": (
        [Chunk(thinking="hm"), last(reason=FinishReason.LENGTH)],
        (COMPLETE, "length", None, ""),
    ),
    "blocked": (["some", last(reason=FinishReason.BLOCKED)], BLOCKED),
    "blocked beyond full": (["some", last("0123456789", FinishReason.BLOCKED)], BLOCKED),
    "blocked at once": ([last(reason=FinishReason.BLOCKED)], BLOCKED),
    "overloaded": ([LlmOverloaded()], (FAILED, "error", "llm_overloaded", "")),
    "unavailable after some text": (["some", LlmUnavailable()], (FAILED, "error", "llm_unavailable", "some")),
    "misconfigured": ([LlmMisconfigured()], (FAILED, "error", "llm_misconfigured", "")),
    "silent for too long": (["some", LlmTimeout()], (FAILED, "error", "llm_timeout", "some")),
    "context too long": ([ContextTooLong()], (FAILED, "error", "context_too_long", "")),
    "a defect": (["some", RuntimeError("a defect")], (FAILED, "error", "internal", "some")),
    "nothing": ([], (FAILED, "error", "llm_unavailable", "")),
    "nothing but blanks": ([" ", "\n"], (FAILED, "error", "llm_unavailable", " \n")),
}


@pytest.mark.parametrize(("steps", "end"), ENDS.values(), ids=ENDS)
async def test_a_reply_ends(steps: list[Step], end: tuple[str, str, str | None, str]) -> None:
    async with World(script=plays(*steps), max_chars=10) as world:
        turn = await world.ask(await world.somebody())

        assert outcome(turn.reply) == end
        assert await world.kept(turn) == turn
        assert world.vendor.speaking == 0


@pytest.mark.parametrize(("steps", "end"), ENDS.values(), ids=ENDS)
async def test_what_a_follower_puts_together_is_what_is_stored(
    steps: list[Step], end: tuple[str, str, str | None, str]
) -> None:
    async with World(script=plays(*steps), max_chars=10) as world:
        turn = (await world.send(await world.somebody())).turn
        *growth, ended = await world.events(turn)

        text = ""
        for event in growth:
            match event:
                case Delta(more):
                    text += more
                case Replace(content, reason):
                    assert reason == "moderation"
                    text = content
        assert text == end[3]
        assert isinstance(ended, Ended)
        assert outcome(turn.reply.ended(ended.end)) == end == await stored(world, turn)


async def test_a_vendor_that_ends_without_a_reason_cut_the_answer_short(world: World, anna: User) -> None:
    async def cut(_: Prompt) -> AsyncGenerator[Chunk, None]:
        yield Chunk(text="half")

    world.vendor.script = cut

    assert outcome((await world.ask(anna)).reply) == (FAILED, "error", "llm_unavailable", "half")


async def test_a_vendor_that_talks_past_its_deadline_is_cut_and_its_text_kept() -> None:
    async with World(deadline=0.01, script=plays("half", asyncio.Event())) as world:
        turn = await world.ask(await world.somebody())

        assert outcome(turn.reply) == (FAILED, "error", "llm_timeout", "half")
        assert await world.kept(turn) == turn
        assert world.vendor.speaking == 0


async def test_a_vendor_that_drips_does_not_escape_the_deadline() -> None:
    async def drip(_: Prompt) -> AsyncGenerator[Chunk, None]:
        while True:
            yield Chunk(text=".")
            await asyncio.sleep(0)

    async with World(deadline=0.01, script=drip) as world:
        assert (await world.ask(await world.somebody())).reply.reason == "llm_timeout"


async def test_what_a_model_thinks_is_cut_at_the_same_length_and_leaves_its_answer_whole() -> None:
    async with World(max_chars=10, script=plays(Chunk(thinking="0123456"), Chunk(thinking="789abc"), "one")) as world:
        turn = await world.ask(await world.somebody())

        assert (turn.reply.thinking, *outcome(turn.reply)) == ("0123456789", COMPLETE, "stop", None, "one")


async def test_a_model_that_has_finished_but_does_not_hang_up_has_finished() -> None:
    async def never_hangs_up(_: Prompt) -> AsyncGenerator[Chunk, None]:
        try:
            yield last("whole")
        finally:
            await asyncio.Event().wait()

    async with World(deadline=0.01, script=never_hangs_up) as world:
        assert outcome((await world.ask(await world.somebody())).reply) == (COMPLETE, "stop", None, "whole")


async def test_the_latest_model_and_usage_count_and_a_models_name_is_cut(world: World, anna: User) -> None:
    first, second = Usage(input_tokens=1, output_tokens=1), Usage(input_tokens=9, output_tokens=7)
    world.vendor.script = plays(
        Chunk(text="a", model="early", usage=first),
        Chunk(text="b", model="m" * 200, usage=second),
        Chunk(finish_reason=FinishReason.STOP),
    )

    reply = (await world.ask(anna)).reply

    assert (reply.model, reply.usage) == ("m" * 128, second), "as long as its column, and as any that can be set"


async def test_a_failed_reply_still_tells_its_model_and_usage(world: World, anna: User) -> None:
    usage = Usage(input_tokens=1, output_tokens=1)
    world.vendor.script = plays(Chunk(text="a", model="m-1", usage=usage), LlmUnavailable())

    reply = (await world.ask(anna)).reply

    assert (reply.model, reply.usage) == ("m-1", usage)


READ = estimate_tokens("a question")
SOME = estimate_tokens("some")
ESTIMATES: dict[str, tuple[list[Step], int | None]] = {
    "stop": (["so", "me"], SOME),
    "with thinking": ([Chunk(thinking="think"), "some"], SOME + estimate_tokens("think")),
    "cut where it is full": (["0123456", "789abc"], estimate_tokens("0123456789")),
    "blocked: what is withdrawn was made all the same": (["some", last(reason=FinishReason.BLOCKED)], SOME),
    "blocked at once": ([last(reason=FinishReason.BLOCKED)], 0),
    "failed after some text": (["some", LlmUnavailable()], SOME),
    "failed while it thought": ([Chunk(thinking="some"), LlmUnavailable()], SOME),
    "a defect after some text": (["some", RuntimeError("a defect")], SOME),
    "nothing but blanks": ([" ", "\n"], estimate_tokens(" \n")),
    "failed before the first piece": ([LlmUnavailable()], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize(("steps", "written"), ESTIMATES.values(), ids=ESTIMATES)
async def test_what_a_silent_vendor_took_is_estimated_stored_and_counted(
    steps: list[Step], written: int | None
) -> None:
    async with World(script=plays(*steps), max_chars=10) as world:
        anna = await world.somebody()
        turn = await world.ask(anna)

        expected = None if written is None else Usage(input_tokens=READ, output_tokens=written, estimated=True)
        assert turn.reply.usage == expected
        assert await world.kept(turn) == turn
        used = (await world.usage.today(anna)).used
        read = 0 if written is None else READ
        assert (used.messages, used.input_tokens, used.output_tokens) == (1, read, written or 0)


async def test_what_a_stopped_reply_and_one_that_took_too_long_took_is_estimated(world: World) -> None:
    turn = await a_reply_under_way(world, asyncio.Event())
    stopped = (await world.replies.stop(await world.somebody("anna"), turn.reply.id)).turn.reply

    async with World(deadline=0.01, script=plays("half", asyncio.Event())) as hasty:
        late = (await hasty.ask(await hasty.somebody())).reply

    half = Usage(input_tokens=READ, output_tokens=estimate_tokens("half"), estimated=True)
    assert (stopped.status, stopped.usage) == ("stopped", half)
    assert (late.reason, late.usage) == ("llm_timeout", half)


async def test_a_reply_that_is_stopped_before_it_said_anything_took_nothing_that_we_know_of(world: World) -> None:
    anna = await world.somebody()
    world.vendor.script = plays(asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)

    assert (await world.replies.stop(anna, turn.reply.id)).turn.reply.usage is None


async def test_the_whole_prompt_is_estimated_and_what_a_vendor_counted_is_left_as_it_is(
    world: World, anna: User
) -> None:
    counted = Usage(input_tokens=1, output_tokens=1)
    session = (await world.ask(anna, "one")).message.session_id
    second = (await world.ask(anna, "two", session_id=session)).reply.usage
    world.vendor.script = plays("said", Chunk(finish_reason=FinishReason.STOP, usage=counted))

    assert second
    assert second.input_tokens == sum(map(estimate_tokens, ("one", "an answer", "two")))
    assert (await world.ask(anna, "three", session_id=session)).reply.usage == counted
    world.vendor.script = plays("said", Chunk(finish_reason=FinishReason.BLOCKED, usage=counted))
    assert (await world.ask(anna, "four", session_id=session)).reply.usage == counted


async def test_what_an_unsaved_turn_took_is_estimated_and_counts_on_the_day_alone(world: World, anna: User) -> None:
    hiding = replace(anna, preferences=replace(anna.preferences, save_history=False))

    turn = await world.ask(hiding)

    assert not turn.saved
    assert turn.reply.usage == Usage(input_tokens=READ, output_tokens=estimate_tokens("an answer"), estimated=True)
    used = (await world.usage.today(anna)).used
    assert (used.input_tokens, used.output_tokens) == (READ, estimate_tokens("an answer"))


@pytest.mark.parametrize("steps", [["text"], [LlmUnavailable()], [last(reason=FinishReason.BLOCKED)]], ids=str)
async def test_an_end_is_told_only_after_it_is_stored(world: World, anna: User, steps: list[Step]) -> None:
    told: list[tuple[End | None, End]] = []

    async def at_end(reply_id: str, event: Ended) -> None:
        turn = await world.store.inner.read(lambda tx: tx.turns.find(reply_id, anna.id))
        told.append((turn.reply.end if turn else None, event.end))

    world.feed.at_end = at_end
    world.vendor.script = plays(*steps)
    await world.ask(anna)

    assert len(told) == 1
    assert told[0][0] == told[0][1]


# --- Claims whose outcome is in doubt -------------------------------------------------------------------------------


async def test_a_claim_that_was_committed_unheard_runs_once(world: World, anna: User) -> None:
    await world.lease.ensure()
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)

    sent = await world.send(anna, key="k")

    assert not sent.replayed
    assert outcome((await world.end_of(sent.turn)).reply) == (COMPLETE, "stop", None, "an answer")
    assert len(world.vendor.prompts) == 1
    assert (await world.send(anna, key="k")).turn.reply.id == sent.turn.reply.id


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LOST_BEFORE_COMMIT])
async def test_a_claim_that_was_not_committed_is_refused_and_may_come_again(
    world: World, anna: User, fault: Fault
) -> None:
    await world.lease.ensure()
    world.store.faults.append(fault)

    with pytest.raises(StoreUnavailable):
        await world.send(anna, key="k")

    assert world.vendor.prompts == []
    assert not (await world.send(anna, key="k")).replayed


async def test_a_process_that_cannot_say_that_it_lives_claims_nothing(world: World, anna: User) -> None:
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)  # meets the lease

    with pytest.raises(StoreUnavailable):
        await world.send(anna, key="k")

    assert world.vendor.prompts == []
    assert not (await world.send(anna, key="k")).replayed


async def test_a_claim_in_doubt_is_looked_for_until_others_may_end_it(world: World, anna: User) -> None:
    await world.lease.ensure()
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)
    sending = asyncio.create_task(world.send(anna, key="k"))
    await until(lambda: not world.store.faults)
    world.store.away = True
    await until(lambda: world.store.refused > 3)
    assert not sending.done()

    world.clock.advance(VALID_SECONDS)

    with pytest.raises(StoreUnavailable):
        await sending
    assert world.vendor.prompts == []
    world.store.away = False
    again = await world.ask(anna, key="k")
    assert (again.reply.attempt, again.message.position, again.reply.content) == (1, 1, "an answer")
    assert len(world.vendor.prompts) == 1


async def test_a_defect_in_the_claim_is_told_to_the_caller(world: World, anna: User) -> None:
    await world.lease.ensure()
    world.store.faults.append(Fault.DEFECT)

    with pytest.raises(RuntimeError):
        await world.send(anna)


# --- Ends that are hard to store ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.AWAY],
        [Fault.AWAY] * 5,
        [Fault.LOST_BEFORE_COMMIT],
        [Fault.LOST_AFTER_COMMIT],
        [Fault.AWAY, Fault.LOST_BEFORE_COMMIT, Fault.LOST_AFTER_COMMIT, Fault.AWAY],
    ],
    ids=lambda faults: "+".join(fault.name.lower() for fault in faults),
)
async def test_an_end_is_stored_once_whatever_becomes_of_the_first_tries(world: World, faults: list[Fault]) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on, " and half")
    world.store.faults.extend(faults)
    go_on.set()

    ended = await world.end_of(turn)

    assert outcome(ended.reply) == (COMPLETE, "stop", None, "half and half")
    assert await world.kept(turn) == ended
    assert not world.store.faults
    assert len(world.vendor.prompts) == 1


async def test_an_end_that_cannot_be_stored_before_the_lease_lapses_is_told_as_not_stored(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on, " and half")
    world.store.away = True
    go_on.set()
    await until(lambda: world.store.refused > 3)
    assert (await world.messages.settle(turn, 0)).reply.status is Status.RUNNING

    world.clock.advance(VALID_SECONDS)

    ended = await world.end_of(turn)
    assert outcome(ended.reply) == (FAILED, "error", "reply_not_stored", "half and half")
    world.store.away = False
    assert (await stored(world, turn))[0] == Status.RUNNING
    async with World(beside=world) as other:  # whoever looks next ends it for good
        seen = await other.follower.stored(turn.reply.id, turn.message.user_id)
    assert seen.reply.reason == "reply_interrupted"
    assert await world.kept(turn) == seen


async def test_a_defect_while_storing_an_end_makes_it_an_internal_failure(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on)
    world.store.faults.append(Fault.DEFECT)
    go_on.set()

    assert (await world.end_of(turn)).reply.reason == "internal"
    assert (await stored(world, turn))[:3] == (FAILED, "error", "internal")


async def test_where_not_even_the_defect_can_be_stored_followers_are_told_all_the_same(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on)
    world.store.faults.extend([Fault.DEFECT, Fault.DEFECT])
    go_on.set()

    assert (await world.end_of(turn)).reply.reason == "internal"


async def test_a_follower_ends_with_the_text_that_somebody_else_ended_the_reply_with(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on, " and half")
    theirs = an_end("theirs", status=Status.STOPPED, finish_reason=FinishReason.STOPPED, seq=1_000_000)
    await world.store.inner.write(lambda tx: tx.replies.finish(turn.reply.id, 0, theirs))

    go_on.set()

    assert (await world.events(turn))[-2:] == [Replace("theirs", "resync"), Ended(theirs)]


async def test_a_reply_that_somebody_else_ended_is_left_alone_and_told_as_they_ended_it(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on, " and half")
    at = NOW + timedelta(seconds=1)
    theirs = an_end("theirs", status=Status.STOPPED, finish_reason=FinishReason.STOPPED, at=at, seq=1_000_000)
    assert await world.store.inner.write(lambda tx: tx.replies.finish(turn.reply.id, 0, theirs))

    go_on.set()

    assert (await world.end_of(turn)).reply.end == theirs
    kept = await world.kept(turn)
    assert kept
    assert kept.reply.end == theirs


async def test_a_reply_whose_turn_is_gone_was_stopped_and_is_not_to_be_sent_again(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on)
    world.store.inner = World().store.inner  # the turn is gone
    go_on.set()

    ended = (await world.end_of(turn)).reply
    assert (ended.status, ended.reason) == (Status.STOPPED, None)


# --- When others stop believing in this process ---------------------------------------------------------------------


@pytest.mark.parametrize("away", [True, False], ids=["the database is away", "the database is back"])
async def test_replies_are_interrupted_once_their_lease_lapsed(world: World, away: bool) -> None:
    turn = await a_reply_under_way(world, asyncio.Event())
    world.clock.advance(VALID_SECONDS)
    world.store.away = away

    renewal = asyncio.gather(world.upkeep.renew(), return_exceptions=True)

    assert [type(result) for result in await renewal] == [StoreUnavailable if away else type(None)]
    ended = await world.end_of(turn)
    assert (ended.reply.reason, ended.reply.content) == ("reply_not_stored" if away else "reply_interrupted", "half")
    assert world.vendor.speaking == 0


async def test_replies_claimed_under_a_new_id_go_on_when_those_under_the_lapsed_one_end(
    world: World, anna: User
) -> None:
    old = await a_reply_under_way(world, asyncio.Event())
    world.clock.advance(VALID_SECONDS)
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on, " and half")
    new = (await world.send(anna)).turn  # renews the lease by itself
    await until(lambda: world.vendor.speaking == 2)

    await world.upkeep.renew()

    assert (await world.end_of(old)).reply.reason == "reply_interrupted"
    go_on.set()
    assert (await world.end_of(new)).reply.content == "half and half"


async def test_a_renewal_in_time_disturbs_nobody_even_if_it_fails(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on)
    world.clock.advance(VALID_SECONDS - 1)
    world.store.faults.append(Fault.AWAY)

    with pytest.raises(StoreUnavailable):
        await world.upkeep.renew()

    go_on.set()
    assert (await world.end_of(turn)).reply.status is Status.COMPLETE


# --- Going away -----------------------------------------------------------------------------------------------------


async def test_draining_lets_a_reply_finish(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on, " and half")

    draining = asyncio.create_task(world.engine.drain(5))
    await asyncio.sleep(0)
    go_on.set()
    await draining

    assert await stored(world, turn) == (COMPLETE, "stop", None, "half and half")


async def test_draining_interrupts_what_cannot_finish_saves_its_text_and_ends_its_feed(world: World) -> None:
    turns = [await a_reply_under_way(world, asyncio.Event()) for _ in range(3)]
    following = [asyncio.create_task(world.events(turn)) for turn in turns]

    await world.engine.drain(0)

    for turn, events in zip(turns, following, strict=True):
        assert await stored(world, turn) == (FAILED, "error", "reply_interrupted", "half")
        (half, ended) = await events
        assert half == Delta("half")
        assert isinstance(ended, Ended)
        assert ended.end.reason == "reply_interrupted"
    assert world.vendor.speaking == 0


async def test_a_draining_process_takes_nothing_new_and_drains_twice_without_harm(world: World, anna: User) -> None:
    turn = await a_reply_under_way(world, asyncio.Event())
    draining = asyncio.create_task(world.engine.drain(5))
    await asyncio.sleep(0)

    with pytest.raises(ShuttingDown):
        await world.send(anna)

    await world.engine.drain(0)
    await draining
    assert (await stored(world, turn))[2] == "reply_interrupted"


async def test_a_send_that_was_let_in_before_the_drain_began_is_refused_at_the_engines_door(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def judges_slowly(*_: str) -> bool:
        await world.engine.drain(0)
        return True

    monkeypatch.setattr(world.moderator, "allows", judges_slowly)

    with pytest.raises(ShuttingDown):
        await world.send(anna, key="k")

    assert await world.store.read(lambda tx: tx.turns.find_by_key("k", anna.id)) is None


async def test_a_claim_that_commits_when_the_process_is_closing_ends_interrupted(world: World, anna: User) -> None:
    await world.lease.ensure()
    world.vendor.script = plays("half", asyncio.Event())
    world.store.closed_door = asyncio.Event()
    sending = asyncio.create_task(world.send(anna))
    await asyncio.sleep(0)
    draining = asyncio.create_task(world.engine.drain(0))
    await asyncio.sleep(0.005)
    assert not draining.done()

    world.store.closed_door.set()

    await draining
    turn = (await sending).turn
    assert (await stored(world, turn))[:3] == (FAILED, "error", "reply_interrupted")
    assert world.vendor.speaking == 0


async def test_closing_does_not_wait_for_a_database_that_is_away(world: World) -> None:
    turn = await a_reply_under_way(world, asyncio.Event())
    world.store.away = True

    await asyncio.wait_for(world.engine.drain(0), 1)

    assert (await world.end_of(turn)).reply.reason == "reply_not_stored"
    assert world.store.refused == 1


async def test_closing_while_a_finished_reply_waits_for_the_database_gives_it_up(world: World) -> None:
    go_on = asyncio.Event()
    turn = await a_reply_under_way(world, go_on)
    world.store.away = True
    go_on.set()
    await until(lambda: world.store.refused > 3)

    await asyncio.wait_for(world.engine.drain(0), 1)

    ended = await world.end_of(turn)
    assert (ended.reply.reason, ended.reply.content) == ("reply_not_stored", "half")


async def test_a_reply_whose_deadline_passed_is_no_interruption_any_more() -> None:
    closing = asyncio.Event()

    async def slow_to_close(_: Prompt) -> AsyncGenerator[Chunk, None]:
        try:
            yield Chunk(text="half")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.set()
            await closing.wait()
            raise

    cut = asyncio.Event()
    async with World(deadline=0.01, script=slow_to_close) as world:
        turn = (await world.send(await world.somebody())).turn
        await cut.wait()
        draining = asyncio.create_task(world.engine.drain(0))
        await asyncio.sleep(0.005)
        closing.set()
        await draining

        assert (await stored(world, turn))[2] == "llm_timeout"
