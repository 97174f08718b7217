"""What a user may do with a reply besides reading it: rate it, and erase its turn."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.domain.errors import ContentInvalid, LlmUnavailable, MessageNotFound, StoreUnavailable
from chatassist.domain.model import Preferences, User
from chatassist.domain.ports.replies import Ended
from chatassist.domain.turns import Feedback, Rating, Status, Turn
from chatassist.domain.upkeep import FORGET_KEYS
from tests.builders import new_id
from tests.unit.worlds import World, until

KEY = "key-1"
LIKED = Feedback(rating=Rating.LIKE)
DISLIKED = Feedback(rating=Rating.DISLIKE, comment="太长了")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


async def not_theirs(world: World, turn: Turn) -> list[tuple[User, str]]:
    """Everybody who names what is no reply of his."""
    anna, boris = await world.somebody("anna"), await world.somebody("boris")
    ids = (turn.message.id, turn.message.session_id, new_id(), "garbage", "")
    return [(boris, turn.reply.id), *((anna, each) for each in ids)]


# --- Rating ---------------------------------------------------------------------------------------------------------


async def test_a_rating_is_kept_changed_and_taken_back(world: World, anna: User) -> None:
    turn = await world.ask(anna)

    for feedback in (LIKED, DISLIKED, None, LIKED):
        answered = await world.replies.rate(anna, turn.reply.id, feedback)

        kept = await world.kept(turn)
        assert kept
        assert answered.turn == kept == await world.get(anna, turn.reply.id)
        assert (kept.reply.feedback, answered.versions) == (feedback, [turn.reply.id])


async def test_a_running_reply_can_be_rated_and_keeps_its_rating(world: World, anna: User) -> None:
    go_on = asyncio.Event()
    world.vendor.script = plays("half", go_on, " and half")
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)

    answered = (await world.replies.rate(anna, turn.reply.id, DISLIKED)).turn

    assert (answered.reply.status, answered.reply.content, answered.reply.feedback) == ("running", "half", DISLIKED)
    go_on.set()
    await world.end_of(turn)
    ended = await world.get(anna, turn.reply.id)
    assert (ended.reply.content, ended.reply.feedback) == ("half and half", DISLIKED)


async def test_a_rating_survives_another_attempt(world: World, anna: User) -> None:
    world.vendor.script = plays(LlmUnavailable())
    failed = await world.ask(anna, key=KEY)
    await world.replies.rate(anna, failed.reply.id, DISLIKED)
    world.vendor.script = plays("better")

    await world.ask(anna, key=KEY)

    assert (await world.get(anna, failed.reply.id)).reply.feedback == DISLIKED


async def test_only_ones_own_replies_are_rated(world: World, anna: User) -> None:
    turn = await world.ask(anna)

    for user, reply_id in await not_theirs(world, turn):
        with pytest.raises(MessageNotFound):
            await world.replies.rate(user, reply_id, LIKED)

    assert await world.kept(turn) == turn


@pytest.mark.parametrize("comment", ["\ud83d", "a\x00b"])
async def test_a_comment_that_cannot_be_stored_is_refused(world: World, anna: User, comment: str) -> None:
    turn = await world.ask(anna)

    with pytest.raises(ContentInvalid):
        await world.replies.rate(anna, turn.reply.id, Feedback(rating=Rating.LIKE, comment=comment))


# --- Deleting -------------------------------------------------------------------------------------------------------


async def gone(world: World, turn: Turn) -> None:
    """A turn and everything that leads to it is not found."""
    anna = await world.somebody("anna")
    assert await world.kept(turn) is None
    for asking in (
        world.replies.get(anna, turn.reply.id),
        world.replies.follow(anna, turn.reply.id, 0),
        world.replies.stop(anna, turn.reply.id),
        world.replies.rate(anna, turn.reply.id, LIKED),
        world.replies.delete(anna, turn.reply.id),
        world.messages.regenerate(anna, turn.reply.id),
    ):
        with pytest.raises(MessageNotFound):
            await asking


async def test_a_deleted_turn_is_gone_and_its_neighbours_stay(world: World, anna: User) -> None:
    session = (one := await world.ask(anna, "one")).message.session_id
    two, three = [await world.ask(anna, text, session_id=session) for text in ("two", "three")]

    assert await world.replies.delete(anna, two.reply.id) == 2

    await gone(world, two)
    found, turns = await world.sessions.latest(anna, session)
    assert (list(turns), found.turns, found.updated_at) == ([one, three], 3, three.message.created_at)
    four = await world.ask(anna, "four", session_id=session)
    assert four.message.position == 4
    assert [said.content for said in world.vendor.prompts[-1].utterances][::2] == ["one", "three", "four"]


async def test_all_versions_of_a_turn_are_deleted_with_it(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    versions = [turn]
    for _ in range(2):
        sent = await world.messages.regenerate(anna, turn.reply.id)
        versions.append(await world.end_of(sent.turn))

    assert await world.replies.delete(anna, versions[1].reply.id) == 4

    for version in versions:
        await gone(world, version)


async def test_a_running_turn_is_stopped_then_deleted(world: World, anna: User) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(anna, key=KEY)).turn
    await until(lambda: world.vendor.speaking)
    following = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)

    assert await world.replies.delete(anna, turn.reply.id) == 2

    ended = (await following)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.status == "stopped"
    assert world.vendor.speaking == 0
    await gone(world, turn)


async def test_another_version_that_is_being_made_is_stopped_too(world: World, anna: User) -> None:
    first = await world.ask(anna)
    world.vendor.script = plays("half", asyncio.Event())
    await world.messages.regenerate(anna, first.reply.id)
    await until(lambda: world.vendor.speaking)

    assert await world.replies.delete(anna, first.reply.id) == 3

    assert world.vendor.speaking == 0


async def test_deleting_twice_at_once_deletes_once(world: World, anna: User) -> None:
    turn = await world.ask(anna)

    outcomes = await asyncio.gather(
        *(world.replies.delete(anna, turn.reply.id) for _ in range(3)), return_exceptions=True
    )

    assert sorted(map(str, outcomes)) == ["2", "message_not_found", "message_not_found"]


async def test_only_ones_own_turns_are_deleted(world: World, anna: User) -> None:
    turn = await world.ask(anna)

    for user, reply_id in await not_theirs(world, turn):
        with pytest.raises(MessageNotFound):
            await world.replies.delete(user, reply_id)

    assert await world.kept(turn) == turn


async def test_a_turn_that_was_not_deleted_is_still_there(world: World, anna: User) -> None:
    turn = await world.ask(anna)
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await world.replies.delete(anna, turn.reply.id)

    assert await world.kept(turn) == turn


@pytest.mark.parametrize("steps", range(8))
async def test_a_user_who_goes_away_while_deleting_leaves_a_whole_turn_or_none(
    world: World, anna: User, steps: int
) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)
    deleting = asyncio.create_task(world.replies.delete(anna, turn.reply.id))
    for _ in range(steps):
        await asyncio.sleep(0)
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    await asyncio.sleep(0.001)

    kept = await world.kept(turn)
    assert kept is None or kept.reply.content in ("half", "")
    if kept:
        await world.replies.delete(anna, turn.reply.id)
    await gone(world, turn)


async def test_the_key_of_a_deleted_turn_is_spent_until_it_is_purged(world: World, anna: User) -> None:
    turn = await world.ask(anna, "hello", key=KEY)
    await world.replies.delete(anna, turn.reply.id)

    for text in ("hello", "something else"):
        with pytest.raises(MessageNotFound):
            await world.send(anna, text, key=KEY)
    other = await world.ask(anna)
    with pytest.raises(MessageNotFound):
        await world.messages.regenerate(anna, other.reply.id, key=KEY)
    assert not (await world.send(await world.somebody("boris"), key=KEY)).replayed

    world.clock.advance(FORGET_KEYS.total_seconds())
    await world.upkeep.purge()
    with pytest.raises(MessageNotFound):
        await world.send(anna, "hello", key=KEY)

    world.clock.now += timedelta(microseconds=1)
    await world.upkeep.purge()
    assert not (await world.send(anna, "something else", key=KEY)).replayed


async def test_the_keys_of_all_versions_are_spent(world: World, anna: User) -> None:
    turn = await world.ask(anna, key="one")
    await world.end_of((await world.messages.regenerate(anna, turn.reply.id, key="two")).turn)
    await world.replies.delete(anna, turn.reply.id)

    for key in ("one", "two"):
        with pytest.raises(MessageNotFound):
            await world.send(anna, key=key)


async def test_a_reply_that_began_between_stop_and_erasure_is_given_up_and_leaves_nothing(
    world: World, anna: User
) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(anna, key=KEY)).turn
    await until(lambda: world.vendor.speaking)
    following = asyncio.create_task(world.events(turn))
    await asyncio.sleep(0)

    await world.replies._stopper.erase(turn)
    await world.engine.look_for_stopped()

    ended = (await following)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.status is Status.STOPPED
    assert world.vendor.speaking == 0
    await gone(world, turn)


async def test_a_reply_that_nobody_keeps_and_that_began_between_is_given_up_at_once_too(
    world: World, anna: User
) -> None:
    keeps_nothing = replace(anna, preferences=Preferences(save_history=False))
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(keeps_nothing, key=KEY)).turn
    await until(lambda: world.vendor.speaking)

    await world.replies._stopper.erase(turn)

    await until(lambda: not world.vendor.speaking)
    with pytest.raises(MessageNotFound):
        await world.get(keeps_nothing, turn.reply.id)
