"""Another version of a reply: of the last turn only, beside the old ones, once per key."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import Step, plays
from chatassist.domain.errors import (
    IdempotencyMismatch,
    KeyInvalid,
    LlmUnavailable,
    MessageNotFound,
    ModelUnknown,
    NotLastTurn,
    ReplyRunning,
    StoreUnavailable,
    TooManySends,
)
from chatassist.domain.model import Preferences, User
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.services.messages import Sent
from chatassist.domain.turns import FinishReason, Status, Turn
from tests.builders import new_id
from tests.unit.worlds import Fault, World, until

KEY = "key-1"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(models={"large", "small"}) as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


@pytest.fixture
async def first(world: World, anna: User) -> Turn:
    return await world.ask(anna, "why?", key="first")


async def regenerated(world: World, turn: Turn, *steps: Step, key: str | None = None) -> Turn:
    """Make another version that says this, and wait for its end."""
    world.vendor.script = plays(*steps or ("another answer",))
    user = await world.somebody("anna")
    return await world.end_of((await world.messages.regenerate(user, turn.reply.id, key=key)).turn)


async def shown(world: World, turn: Turn) -> Turn:
    """What the session shows of its last turn."""
    _, turns = await world.sessions.latest(await world.somebody("anna"), turn.message.session_id)
    return turns[-1]


async def heard_next(world: World, turn: Turn) -> list[str]:
    """What the vendor is given with the session's next question."""
    world.vendor.script = plays("x")
    await world.ask(await world.somebody("anna"), "next", session_id=turn.message.session_id)
    return [one.content for one in world.vendor.prompts[-1].utterances]


# --- Versions -------------------------------------------------------------------------------------------------------


async def test_a_new_version_stands_beside_the_old_one(world: World, anna: User, first: Turn) -> None:
    second = await regenerated(world, first)

    assert second.message == first.message
    assert (second.reply.version, second.reply.content, second.reply.status) == (2, "another answer", "complete")
    assert await world.kept(first) == first
    assert await world.kept(second) == second
    for turn in (first, second):
        seen = await world.replies.get(anna, turn.reply.id)
        assert (seen.turn, seen.versions) == (turn, [first.reply.id, second.reply.id])


async def test_any_version_may_be_named_and_versions_count_on(world: World, first: Turn) -> None:
    second = await regenerated(world, first)

    assert [(await regenerated(world, turn)).reply.version for turn in (first, second)] == [3, 4]


async def test_the_same_question_is_asked_again_after_what_came_before_it(world: World, anna: User) -> None:
    session = (await world.ask(anna, "one")).message.session_id
    second = await world.ask(anna, "two", session_id=session)

    await regenerated(world, second)

    assert [one.content for one in world.vendor.prompts[-1].utterances] == ["one", "an answer", "two"]


async def test_another_model_may_be_asked(world: World, anna: User, first: Turn) -> None:
    turn = await world.end_of((await world.messages.regenerate(anna, first.reply.id, model="large")).turn)

    assert world.vendor.prompts[-1].model == turn.reply.requested_model == "large"
    with pytest.raises(ModelUnknown):
        await world.messages.regenerate(anna, first.reply.id, model="gigantic")


async def test_it_counts_no_turn_and_is_numbered_from_one(world: World, anna: User, first: Turn) -> None:
    second = await regenerated(world, first)

    session, turns = await world.sessions.latest(anna, first.message.session_id)
    assert (session.turns, len(turns)) == (1, 1)
    assert (second.reply.attempt, second.reply.seq) == (0, 2)


# --- What a turn shows ----------------------------------------------------------------------------------------------


STOPPED = Chunk(text="cut", finish_reason=FinishReason.LENGTH)
BLOCKED = Chunk(finish_reason=FinishReason.BLOCKED)


@pytest.mark.parametrize(
    ("versions", "shows"),
    [
        ([["one"], ["two"]], 2),
        ([["one"], [LlmUnavailable()]], 1),
        ([["one"], ["half", LlmUnavailable()]], 1),
        ([[LlmUnavailable()], ["two"]], 2),
        ([[LlmUnavailable()], ["half", LlmUnavailable()]], 2),
        ([["one"], ["two"], [LlmUnavailable()]], 2),
        ([["one"], [STOPPED]], 2),
    ],
    ids=str,
)
async def test_a_turn_shows_and_says_its_newest_good_version(
    world: World, anna: User, versions: list[list[Step]], shows: int
) -> None:
    world.vendor.script = plays(*versions[0])
    turns = [await world.ask(anna, "why?")]
    turns += [await regenerated(world, turns[0], *steps) for steps in versions[1:]]

    assert await shown(world, turns[0]) == turns[shows - 1]

    good = turns[shows - 1].reply
    says = ["why?", good.content] if good.status is Status.COMPLETE else []
    assert await heard_next(world, turns[0]) == [*says, "next"]


async def test_a_version_that_is_still_made_is_shown_only_where_there_is_no_good_one(
    world: World, anna: User, first: Turn
) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    await world.messages.regenerate(anna, first.reply.id)

    assert await shown(world, first) == first
    assert await heard_next(world, first) == ["why?", "an answer", "next"]

    world.vendor.script = plays(LlmUnavailable())
    failed = await world.ask(anna)
    world.vendor.script = plays("half", asyncio.Event())
    running = (await world.messages.regenerate(anna, failed.reply.id)).turn
    assert (await shown(world, failed)).reply.id == running.reply.id
    assert await heard_next(world, failed) == ["next"]


async def test_a_stopped_version_with_text_is_good_and_one_without_is_not(
    world: World, anna: User, first: Turn
) -> None:
    world.vendor.script = plays(asyncio.Event())
    silent = (await world.messages.regenerate(anna, first.reply.id)).turn
    await world.replies.stop(anna, silent.reply.id)
    assert await shown(world, first) == first

    world.vendor.script = plays("half", asyncio.Event())
    half = (await world.messages.regenerate(anna, first.reply.id)).turn
    await until(lambda: world.vendor.speaking)
    await world.replies.stop(anna, half.reply.id)
    assert (await shown(world, first)).reply.id == half.reply.id
    assert await heard_next(world, first) == ["why?", "half", "next"]


async def test_a_turn_whose_newest_version_was_blocked_is_in_no_prompt(world: World, first: Turn) -> None:
    blocked = await regenerated(world, first, "some", BLOCKED)

    assert await shown(world, first) == blocked
    assert await heard_next(world, first) == ["next"]


# --- What is refused ------------------------------------------------------------------------------------------------


async def test_only_the_last_turn_is_made_again(world: World, anna: User, first: Turn) -> None:
    second = await world.ask(anna, "and?", session_id=first.message.session_id)

    with pytest.raises(NotLastTurn):
        await world.messages.regenerate(anna, first.reply.id, key=KEY)

    assert await world.stores.find_by_key(KEY, anna) is None
    assert (await regenerated(world, second)).reply.version == 2


async def test_a_turn_is_the_last_again_once_those_after_it_were_deleted(world: World, anna: User, first: Turn) -> None:
    second = await world.ask(anna, "and?", session_id=first.message.session_id)
    await world.replies.delete(anna, second.reply.id)

    assert (await regenerated(world, first)).reply.version == 2


async def test_nothing_is_made_again_while_any_version_is_made(world: World, anna: User, first: Turn) -> None:
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on)
    second = (await world.messages.regenerate(anna, first.reply.id)).turn

    for turn in (first, second):
        with pytest.raises(ReplyRunning):
            await world.messages.regenerate(anna, turn.reply.id, key=KEY)

    go_on.set()
    await world.end_of(second)
    assert (await regenerated(world, first, key=KEY)).reply.version == 3


async def test_a_turn_that_is_deleted_in_between_is_not_found(
    world: World, anna: User, first: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(beside=world) as elsewhere:

        async def deleted_by_then(*_: object) -> None:
            await elsewhere.replies.delete(anna, first.reply.id)

        monkeypatch.setattr(world.limiter, "hit", deleted_by_then)
        with pytest.raises(MessageNotFound):
            await world.messages.regenerate(anna, first.reply.id)


async def test_what_is_no_reply_of_the_user_cannot_be_made_again(world: World, anna: User, first: Turn) -> None:
    boris = await world.somebody("boris")
    for user, reply_id in [
        (boris, first.reply.id),
        (anna, first.message.id),
        (anna, first.message.session_id),
        (anna, new_id()),
        (anna, "garbage"),
    ]:
        with pytest.raises(MessageNotFound):
            await world.messages.regenerate(user, reply_id, key=KEY)
    assert len(world.vendor.prompts) == 1


async def test_a_key_of_no_shape_is_refused(world: World, anna: User, first: Turn) -> None:
    with pytest.raises(KeyInvalid):
        await world.messages.regenerate(anna, first.reply.id, key="a b")


async def test_it_counts_as_a_send() -> None:
    async with World(limits={Rule.SENDS: 2}) as world:
        anna = await world.somebody("anna")
        first = await world.ask(anna)
        await regenerated(world, first, key=KEY)

        with pytest.raises(TooManySends):
            await world.messages.regenerate(anna, first.reply.id)
        assert (await world.messages.regenerate(anna, first.reply.id, key=KEY)).replayed  # costs nothing
    assert len(world.moderator.asked) == 1  # the question passed before


# --- Exactly once ---------------------------------------------------------------------------------------------------


async def test_a_version_is_replayed_by_its_key_even_when_its_turn_is_no_longer_the_last(
    world: World, anna: User, first: Turn
) -> None:
    second = await regenerated(world, first, key=KEY)
    await world.ask(anna, "and?", session_id=first.message.session_id)

    for named in (first, second):
        assert await world.messages.regenerate(anna, named.reply.id, key=KEY) == Sent(turn=second, replayed=True)
    assert len(world.vendor.prompts) == 3


async def test_a_failed_version_is_begun_again_by_its_key(world: World, anna: User, first: Turn) -> None:
    failed = await regenerated(world, first, "half", LlmUnavailable(), key=KEY)
    assert failed.reply.status is Status.FAILED

    again = await regenerated(world, first, "whole", key=KEY)

    assert (again.reply.id, again.reply.version, again.reply.attempt) == (failed.reply.id, 2, 1)
    assert again.reply.content == "whole"
    assert await shown(world, first) == again


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "unsaved"])
async def test_a_failed_version_is_begun_again_once_no_other_is_made_and_never_beside_one(
    world: World, anna: User, saved: bool
) -> None:
    anna = replace(anna, preferences=Preferences(save_history=saved))
    world.vendor.script = plays(LlmUnavailable())
    first = await world.ask(anna, "why?", key="send")
    failed = await world.end_of((await world.messages.regenerate(anna, first.reply.id, key="wish")).turn)
    go_on = asyncio.Event()
    world.vendor.script = plays("the third", go_on)
    third = (await world.messages.regenerate(anna, first.reply.id)).turn

    with pytest.raises(ReplyRunning):
        await world.send(anna, "why?", key="send")
    with pytest.raises(ReplyRunning):
        await world.messages.regenerate(anna, first.reply.id, key="wish")

    assert await world.get(anna, first.reply.id) == first
    assert await world.get(anna, failed.reply.id) == failed
    go_on.set()
    third = await world.end_of(third)
    again = await world.ask(anna, "why?", key="send")
    assert (again.reply.id, again.reply.attempt, again.reply.content) == (first.reply.id, 1, "the third")
    if saved:
        assert await shown(world, first) == third, "the newest good one, however late an older one was made good"


async def test_of_a_new_version_and_another_attempt_at_once_one_is_made(world: World, anna: User) -> None:
    world.vendor.script = plays(LlmUnavailable())
    first = await world.ask(anna, "why?", key="send")
    world.vendor.script = plays(asyncio.Event())
    async with World(beside=world, script=plays(asyncio.Event())) as elsewhere:
        outcomes = await asyncio.gather(
            elsewhere.messages.regenerate(anna, first.reply.id),
            world.send(anna, "why?", key="send"),
            return_exceptions=True,
        )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ReplyRunning", "Sent"]


async def test_keys_of_sends_and_of_versions_are_not_mixed_up(world: World, anna: User, first: Turn) -> None:
    await regenerated(world, first, key=KEY)

    with pytest.raises(IdempotencyMismatch):  # a send's key
        await world.messages.regenerate(anna, first.reply.id, key="first")
    with pytest.raises(IdempotencyMismatch):  # a version's key
        await world.send(anna, "why?", key=KEY)
    with pytest.raises(IdempotencyMismatch):  # another model
        await world.messages.regenerate(anna, first.reply.id, key=KEY, model="large")
    other = await world.ask(anna)
    with pytest.raises(IdempotencyMismatch):  # another turn
        await world.messages.regenerate(anna, other.reply.id, key=KEY)
    assert (await world.messages.regenerate(anna, first.reply.id, key=KEY, model="")).replayed


@pytest.mark.parametrize("processes", [1, 2])
async def test_wishes_at_once_with_one_key_are_one_version(
    world: World, anna: User, first: Turn, processes: int
) -> None:
    async with World(beside=world) as elsewhere:
        await elsewhere.lease.ensure()
        worlds = [world, elsewhere][:processes]
        wishes = [each.messages.regenerate(anna, first.reply.id, key=KEY) for each in worlds for _ in range(5)]

        sent = await asyncio.gather(*wishes)

        assert sorted(each.replayed for each in sent) == [False] + [True] * (5 * processes - 1)
        assert len({each.turn.reply.id for each in sent}) == 1
        assert len(world.vendor.prompts) + len(elsewhere.vendor.prompts) == 2
        assert len((await world.replies.get(anna, first.reply.id)).versions) == 2


async def test_wishes_at_once_without_a_key_are_one_version_and_refusals(world: World, anna: User, first: Turn) -> None:
    world.vendor.script = plays(asyncio.Event())

    outcomes = await asyncio.gather(
        *(world.messages.regenerate(anna, first.reply.id) for _ in range(3)), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ReplyRunning", "ReplyRunning", "Sent"]


@pytest.mark.parametrize("fault", [Fault.LOST_AFTER_COMMIT, Fault.LOST_BEFORE_COMMIT, Fault.AWAY])
async def test_a_version_whose_claim_is_in_doubt_is_made_once_or_not_at_all(
    world: World, anna: User, first: Turn, fault: Fault
) -> None:
    world.store.faults.append(fault)

    if fault is Fault.LOST_AFTER_COMMIT:
        assert not (await world.messages.regenerate(anna, first.reply.id, key=KEY)).replayed
    else:
        with pytest.raises(StoreUnavailable):
            await world.messages.regenerate(anna, first.reply.id, key=KEY)

    turn = (await world.messages.regenerate(anna, first.reply.id, key=KEY)).turn
    assert (await world.end_of(turn)).reply.version == 2
    assert len(world.vendor.prompts) == 2


@pytest.mark.parametrize("steps", range(12))
async def test_who_goes_away_at_any_moment_of_a_wish_leaves_a_version_that_is_finished_or_none(
    world: World, anna: User, first: Turn, steps: int
) -> None:
    wishing = asyncio.create_task(world.messages.regenerate(anna, first.reply.id, key=KEY))
    for _ in range(steps):
        await asyncio.sleep(0)
    wishing.cancel()
    await asyncio.gather(wishing, return_exceptions=True)

    turn = await world.end_of((await world.messages.regenerate(anna, first.reply.id, key=KEY)).turn)

    assert (turn.reply.version, turn.reply.status) == (2, "complete")
    assert len(world.vendor.prompts) == 2
