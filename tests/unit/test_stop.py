"""Stopping: here, elsewhere by asking, elsewhere by the fence; one winner, and the text is kept."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.domain.errors import LlmUnavailable, MessageNotFound, StoreUnavailable
from chatassist.domain.model import Prompt, User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.replies import Delta, Ended, Replace
from chatassist.domain.replies import stop
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import FinishReason, Status, Turn
from tests.builders import new_id
from tests.unit.worlds import Fault, TalkingFeed, WitnessedFeed, World, until

KEY = "key-1"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[World]:
    """Another process on the same database, which cannot be heard from here."""
    async with World(beside=world) as elsewhere:
        yield elsewhere


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner gets little time to stop by itself."""
    monkeypatch.setattr(stop, "OWNER_SECONDS", 0.005)


async def under_way(world: World, *rest: Step, key: str | None = None) -> Turn:
    """A turn whose reply has said `half` and goes on with the rest."""
    world.vendor.script = plays("half", *rest or (asyncio.Event(),))
    turn = (await world.send(await world.somebody("anna"), key=key)).turn
    await until(lambda: world.vendor.speaking)
    await asyncio.sleep(0)
    return turn


def ended(turn: Turn) -> Ended:
    assert turn.reply.end
    return Ended(turn.reply.end)


# --- Here -----------------------------------------------------------------------------------------------------------


async def test_a_stopped_reply_keeps_its_texts_and_its_vendor_call_is_cancelled(world: World, anna: User) -> None:
    usage_so_far = Chunk(thinking="hm", model="m-1")
    turn = await under_way(world, usage_so_far, asyncio.Event())

    answered = await world.replies.stop(anna, turn.reply.id)

    reply = answered.turn.reply
    assert (reply.status, reply.finish_reason, reply.reason) == ("stopped", "stopped", None)
    assert (reply.content, reply.thinking, reply.model, reply.seq) == ("half", "hm", "m-1", 3)
    assert await world.kept(turn) == answered.turn
    assert answered.versions == [reply.id]
    assert world.vendor.speaking == 0


async def test_it_is_answered_only_once_the_end_is_stored(world: World, anna: User) -> None:
    turn = await under_way(world)
    world.store.closed_door = asyncio.Event()

    stopping = asyncio.create_task(world.replies.stop(anna, turn.reply.id))
    await until(lambda: not world.vendor.speaking)
    await asyncio.sleep(0.001)
    assert not stopping.done()

    world.store.closed_door.set()
    assert await world.kept(turn) != (await stopping).turn == await world.kept(turn)


async def test_followers_see_a_stopped_end_with_the_next_number(world: World, anna: User) -> None:
    turn = await under_way(world)
    following = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    assert await following == [Delta("half"), ended(stopped)]
    assert stopped.reply.seq == 2


async def test_a_reply_that_has_said_nothing_is_stopped_empty_and_in_no_prompt(world: World, anna: User) -> None:
    world.vendor.script = plays(asyncio.Event())
    turn = (await world.send(anna)).turn

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    assert (stopped.reply.status, stopped.reply.content) == ("stopped", "")
    world.vendor.script = plays("x")
    await world.ask(anna, "next", session_id=turn.message.session_id)
    assert [one.content for one in world.vendor.prompts[-1].utterances] == ["next"]


async def test_what_was_stopped_with_text_is_in_later_prompts(world: World, anna: User) -> None:
    turn = await under_way(world)
    await world.replies.stop(anna, turn.reply.id)

    world.vendor.script = plays("x")
    await world.ask(anna, "next", session_id=turn.message.session_id)

    assert [one.content for one in world.vendor.prompts[-1].utterances] == ["a question", "half", "next"]


@pytest.mark.parametrize("steps", [["whole"], ["half", LlmUnavailable()], [Chunk(finish_reason=FinishReason.BLOCKED)]])
async def test_stopping_what_is_over_is_harmless(world: World, anna: User, steps: list[Step]) -> None:
    world.vendor.script = plays(*steps)
    turn = await world.ask(anna)
    world.clock.advance(60)
    written = world.store.written

    for _ in range(2):
        assert (await world.replies.stop(anna, turn.reply.id)).turn == turn

    assert world.store.written == written


async def test_stopping_twice_at_once_stops_once(world: World, anna: User) -> None:
    turn = await under_way(world)

    stopped = await asyncio.gather(*(world.replies.stop(anna, turn.reply.id) for _ in range(5)))

    assert all(each == stopped[0] for each in stopped)
    assert stopped[0].turn.reply.status is Status.STOPPED


@pytest.mark.parametrize("steps", range(24))
async def test_stop_and_completion_race_to_one_end_that_everybody_is_told(world: World, anna: User, steps: int) -> None:
    go_on = asyncio.Event()
    turn = await under_way(world, go_on, " and half", key=KEY)
    following = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)
    go_on.set()
    for _ in range(steps):
        await asyncio.sleep(0)

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    assert stopped == await world.kept(turn)
    text = "".join(event.text for event in await following if isinstance(event, Delta))
    assert (stopped.reply.status, stopped.reply.content) in [
        ("stopped", "half"),
        ("stopped", "half and half"),
        ("complete", "half and half"),
    ]
    assert text == stopped.reply.content
    assert [event for event in await following if isinstance(event, Ended)] == [ended(stopped)]
    assert (await world.send(anna, key=KEY)).turn == stopped


async def test_a_stop_beats_a_deadline_that_comes_while_the_vendor_hangs_up() -> None:
    closing = asyncio.Event()

    async def slow_to_close(_: Prompt) -> AsyncGenerator[Chunk, None]:
        try:
            yield Chunk(text="half")
            await asyncio.Event().wait()
        finally:
            await closing.wait()

    async with World(deadline=0.01, script=slow_to_close) as world:
        anna = await world.somebody("anna")
        turn = (await world.send(anna)).turn
        await until(lambda: world.vendor.speaking)
        stopping = asyncio.create_task(world.replies.stop(anna, turn.reply.id))
        await asyncio.sleep(0.015)
        closing.set()

        assert (await stopping).turn.reply.status is Status.STOPPED


async def test_a_stopped_turn_is_replayed_by_its_key(world: World, anna: User) -> None:
    turn = await under_way(world, key=KEY)
    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    sent = await world.send(anna, key=KEY)

    assert (sent.replayed, sent.turn) == (True, stopped)
    assert len(world.vendor.prompts) == 1


@pytest.mark.parametrize("steps", range(10))
async def test_who_goes_away_while_stopping_has_stopped_all_the_same(world: World, anna: User, steps: int) -> None:
    turn = await under_way(world)
    stopping = asyncio.create_task(world.replies.stop(anna, turn.reply.id))
    for _ in range(steps):
        await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)

    if steps > 4:  # the stop was heard
        assert (await world.end_of(turn)).reply.status is Status.STOPPED
    assert (await world.replies.stop(anna, turn.reply.id)).turn.reply.content == "half"


async def test_only_ones_own_replies_are_stopped(world: World, anna: User) -> None:
    boris = await world.somebody("boris")
    turn = await under_way(world)

    for user, reply_id in [(boris, turn.reply.id), (anna, turn.message.id), (anna, new_id()), (anna, "garbage")]:
        with pytest.raises(MessageNotFound):
            await world.replies.stop(user, reply_id)

    assert world.vendor.speaking == 1


@pytest.mark.parametrize("faults", [[Fault.AWAY] * 3, [Fault.LOST_AFTER_COMMIT], [Fault.LOST_BEFORE_COMMIT]], ids=str)
async def test_a_stop_is_stored_whatever_becomes_of_the_first_tries(
    world: World, anna: User, faults: list[Fault]
) -> None:
    turn = await under_way(world)
    world.store.faults.extend(faults)

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    assert (stopped.reply.status, stopped.reply.content) == ("stopped", "half")
    assert not world.store.faults


# --- Elsewhere, by asking -------------------------------------------------------------------------------------------


async def test_a_process_that_is_asked_stops_its_reply_with_all_of_its_text(anna: User) -> None:
    feed = TalkingFeed()
    async with World(feed=feed) as owner, World(beside=owner, feed=feed) as elsewhere:
        turn = await under_way(owner)
        hearing = asyncio.create_task(owner.engine.hear_stops())
        await feed.request_stop(new_id())  # of no concern here

        stopped = (await elsewhere.replies.stop(await owner.somebody("anna"), turn.reply.id)).turn

        assert (stopped.reply.status, stopped.reply.content, stopped.reply.seq) == ("stopped", "half", 2)
        assert stopped == await owner.kept(turn)
        assert owner.vendor.speaking == 0
        hearing.cancel()


# --- Elsewhere, by the fence ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_a_process_that_does_not_hear_is_overruled_with_the_text_it_last_saved(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world, go_on := asyncio.Event(), " and half", asyncio.Event())
    await world.engine.save()
    go_on.set()
    following = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)

    stopped = (await elsewhere.replies.stop(anna, turn.reply.id)).turn

    reply = stopped.reply
    assert (reply.status, reply.finish_reason, reply.content, reply.seq) == ("stopped", "stopped", "half", 1_000_000)
    assert stopped == await world.kept(turn)
    assert world.vendor.speaking == 1
    await world.engine.look_for_stopped()
    assert (await following)[-2:] == [Replace("half", "resync"), ended(stopped)]
    assert world.vendor.speaking == 0
    assert stopped == await world.kept(turn)


@pytest.mark.usefixtures("impatient")
async def test_who_follows_a_feed_in_common_hears_at_once_that_the_owner_was_overruled(anna: User) -> None:
    feed = WitnessedFeed()  # which brings no requests to stop
    async with World(feed=feed) as owner, World(beside=owner, feed=feed) as elsewhere:
        turn = await under_way(owner)
        following = [asyncio.create_task(each.events(turn)) for each in (owner, elsewhere)]
        await asyncio.sleep(0)

        stopped = (await elsewhere.replies.stop(await owner.somebody("anna"), turn.reply.id)).turn

        for events in await asyncio.gather(*following):
            assert events[-2:] == [Replace("", "resync"), ended(stopped)]
        assert owner.vendor.speaking == 1  # it does not know yet


def test_an_owner_gets_one_second() -> None:
    assert stop.OWNER_SECONDS == 1.0


@pytest.mark.usefixtures("impatient")
async def test_an_owner_that_ends_in_its_last_moment_wins(
    world: World, elsewhere: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = await under_way(world, go_on := asyncio.Event(), " and half")
    outside = elsewhere.ends.from_outside

    async def late(*given: object) -> Turn:
        go_on.set()
        await world.end_of(turn)
        return await outside(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(elsewhere.ends, "from_outside", late)

    stopped = (await elsewhere.replies.stop(anna, turn.reply.id)).turn

    assert (stopped.reply.status, stopped.reply.content) == ("complete", "half and half")
    assert stopped == await world.kept(turn)


@pytest.mark.usefixtures("impatient")
async def test_a_stop_from_elsewhere_says_when_the_database_is_away(world: World, elsewhere: World, anna: User) -> None:
    turn = await under_way(world)
    stopping = asyncio.create_task(elsewhere.replies.stop(anna, turn.reply.id))
    await asyncio.sleep(0.001)
    elsewhere.store.away = True

    with pytest.raises(StoreUnavailable):
        await stopping


@pytest.mark.usefixtures("impatient")
async def test_a_reply_that_is_erased_while_its_owner_is_asked_is_not_found(
    world: World, elsewhere: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = await under_way(world)
    outside = elsewhere.ends.from_outside

    async def too_late(*given: object) -> Turn:
        await world.replies._stopper.erase(turn)
        return await outside(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(elsewhere.ends, "from_outside", too_late)

    with pytest.raises(MessageNotFound):
        await elsewhere.replies.stop(anna, turn.reply.id)


async def test_a_reply_whose_process_vanished_is_interrupted_and_not_stopped(
    world: World, elsewhere: World, anna: User
) -> None:
    turn = await under_way(world)
    world.clock.advance(VALID_SECONDS)

    assert (await elsewhere.replies.stop(anna, turn.reply.id)).turn.reply.reason == "reply_interrupted"


@pytest.mark.usefixtures("impatient")
async def test_an_attempt_elsewhere_is_stopped_although_this_process_still_makes_an_earlier_one(
    world: World, elsewhere: World, anna: User
) -> None:
    """This process slept, was believed dead, and its reply was begun again elsewhere before it noticed."""
    turn = await under_way(world, key=KEY)
    world.clock.advance(VALID_SECONDS)
    elsewhere.vendor.script = plays("anew", asyncio.Event())
    again = (await elsewhere.send(anna, key=KEY)).turn
    assert again.reply.attempt == 1

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    assert (stopped.reply.status, stopped.reply.attempt) == ("stopped", 1)
    assert stopped == await world.kept(turn)
