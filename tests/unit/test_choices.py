"""Which model answers: the one that is named, else the one that the session chose last, else the operator's default."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.domain.errors import ChatAssistError, LlmBusy, LlmUnavailable, ModelUnknown, TooManyReads, TooManySends
from chatassist.domain.model import User
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.llm import Offer
from chatassist.domain.turns import Turn
from tests.unit.worlds import Fault, World

MODELS = ["small", "large"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(models=MODELS) as world:
        yield world


@pytest.fixture
async def anna(world: World) -> User:
    return await world.somebody("anna")


def hiding(user: User) -> User:
    return replace(user, preferences=replace(user.preferences, save_history=False))


def asked(world: World) -> list[str | None]:
    """Which models were asked for, call by call."""
    return [prompt.model for prompt in world.vendor.prompts]


# --- What the session keeps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [lambda user: user, hiding], ids=["saved", "unsaved"])
async def test_a_session_goes_on_with_the_model_that_was_named_last(
    world: World, anna: User, of: Callable[[User], User]
) -> None:
    person = of(anna)
    session = (await world.ask(person)).message.session_id
    turns = [await world.ask(person, session_id=session, model=model) for model in ("large", None, "small", None)]

    assert asked(world) == [None, "large", "large", "small", "small"]
    assert [turn.reply.requested_model for turn in turns] == ["large", None, "small", None]


async def test_a_choice_that_opens_a_session_is_its_own_and_no_other_sessions(world: World, anna: User) -> None:
    session = (await world.ask(anna, model="large")).message.session_id
    await world.ask(anna, session_id=session)
    await world.ask(anna)

    assert asked(world) == ["large", "large", None]


async def test_an_unsaved_session_goes_on_with_the_model_of_the_one_that_it_continues(world: World, anna: User) -> None:
    session = (await world.ask(anna, model="large")).message.session_id
    hidden = (await world.ask(hiding(anna), session_id=session)).message.session_id
    await world.ask(hiding(anna), session_id=hidden, model="small")
    await world.ask(hiding(anna), session_id=hidden)
    await world.ask(anna, session_id=session)

    assert hidden != session
    assert asked(world) == ["large", "large", "small", "small", "large"]


async def test_a_choice_that_is_offered_no_more_gives_way_to_the_default_until_it_is_offered_again(
    world: World, anna: User
) -> None:
    session = (await world.ask(anna, model="large")).message.session_id

    async with World(models=["small"], beside=world) as elsewhere:
        await elsewhere.ask(anna, session_id=session)
        with pytest.raises(ModelUnknown):
            await elsewhere.ask(anna, session_id=session, model="large")

        assert asked(elsewhere) == [None]
    await world.ask(anna, session_id=session)
    assert asked(world) == ["large", "large"]


async def test_a_send_that_is_refused_chooses_nothing(world: World, anna: User) -> None:
    session = (await world.ask(anna, model="large")).message.session_id

    with pytest.raises(ModelUnknown):
        await world.send(anna, session_id=session, model="enormous")

    await world.ask(anna, session_id=session)
    assert asked(world) == ["large", "large"]


async def test_the_choice_is_known_even_where_the_claim_had_to_be_looked_for(world: World, anna: User) -> None:
    session = (await world.ask(anna, model="large")).message.session_id
    world.store.faults.append(Fault.LOST_AFTER_COMMIT)

    await world.ask(anna, session_id=session)

    assert asked(world) == ["large", "large"]


# --- Other replies to the same message ------------------------------------------------------------------------------


async def regenerated(world: World, user: User, turn: Turn, model: str | None = None) -> Turn:
    return await world.end_of((await world.messages.regenerate(user, turn.reply.id, model=model)).turn)


@pytest.mark.parametrize("of", [lambda user: user, hiding], ids=["saved", "unsaved"])
async def test_another_version_is_by_the_model_it_names_for_itself_alone_else_by_the_sessions(
    world: World, anna: User, of: Callable[[User], User]
) -> None:
    person = of(anna)
    turn = await world.ask(person, model="large")
    named = await regenerated(world, person, turn, "small")
    unnamed = await regenerated(world, person, turn)
    await world.ask(person, session_id=turn.message.session_id)

    assert asked(world) == ["large", "small", "large", "large"]
    assert [one.reply.requested_model for one in (named, unnamed)] == ["small", None]


async def test_a_restart_is_by_the_model_that_the_send_named_else_by_the_sessions(world: World, anna: User) -> None:
    world.vendor.script = plays(LlmUnavailable())
    session = (await world.ask(anna, key="named", model="small")).message.session_id
    await world.ask(anna, key="unnamed", session_id=session)
    world.vendor.script = plays("an answer")
    await world.ask(anna, session_id=session, model="large")
    for key, model in (("named", "small"), ("unnamed", None)):
        await world.ask(anna, key=key, session_id=session, model=model)
    await world.ask(anna, session_id=session)

    assert asked(world) == ["small", "small", "large", "small", "large", "large"]


# --- The operator's list --------------------------------------------------------------------------------------------


async def test_the_operators_list_is_shown_in_his_order_and_looking_at_it_is_limited() -> None:
    async with World(models=MODELS, limits={Rule.READS: 1}) as world:
        anna = await world.somebody()

        assert await world.models.offered(anna) == [
            Offer(model="small", name="small", default=True),
            Offer(model="large", name="large"),
        ]
        with pytest.raises(TooManyReads):
            await world.models.offered(anna)


# --- No room --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def full() -> AsyncIterator[World]:
    """Whose vendor has no room, from the moment that it is said so; each user may send four times a minute."""
    async with World(models=MODELS, limits={Rule.SENDS: 4}) as world:
        yield world


async def test_who_finds_no_room_is_refused_before_he_is_counted_moderated_or_stored(full: World) -> None:
    anna = await full.somebody()
    full.vendor.busy = {None, "large"}
    written, ids = full.store.written, list(full.ids.made)

    for model in (None, "large") * 3:
        with pytest.raises(LlmBusy) as caught:
            await full.send(anna, model=model, key="k")
        assert caught.value.retry_after

    assert (full.store.written, full.ids.made) == (written, ids)
    assert (full.moderator.asked, full.vendor.prompts) == ([], [])
    assert (await full.usage.today(anna)).used.messages == 0
    await full.ask(anna, model="small")
    full.vendor.busy = set()
    for key in ("k", None, None):
        await full.ask(anna, key=key)
    with pytest.raises(TooManySends):
        await full.ask(anna)


async def test_who_is_on_the_way_to_the_model_takes_a_place_before_it_gets_there(full: World) -> None:
    anna, ben = await full.somebody(), await full.somebody("ben")
    full.vendor.places = 2

    sends = [full.send(someone, key=f"{number}") for number in range(4) for someone in (anna, ben)]
    outcomes = await asyncio.gather(*sends, return_exceptions=True)

    assert sum(isinstance(outcome, LlmBusy) for outcome in outcomes) == 6
    assert (await full.usage.today(anna)).used.messages + (await full.usage.today(ben)).used.messages == 2
    full.vendor.places = 1
    await full.ask(ben)


async def test_an_unknown_model_is_named_before_there_is_any_talk_of_room(full: World) -> None:
    full.vendor.busy = {None, "enormous"}

    with pytest.raises(ModelUnknown):
        await full.send(await full.somebody(), model="enormous")


async def test_a_restart_and_another_version_need_room_too(full: World) -> None:
    anna = await full.somebody()
    full.vendor.script = plays(LlmUnavailable())
    failed = await full.ask(anna, key="k", model="large")
    full.vendor.busy = {"large"}
    wishes: list[Callable[[], Awaitable[object]]] = [
        lambda: full.send(anna, key="k", model="large"),
        lambda: full.messages.regenerate(anna, failed.reply.id, model="large"),
    ]

    for wish in wishes:
        with pytest.raises(ChatAssistError) as caught:
            await wish()
        assert type(caught.value) is LlmBusy

    assert await full.kept(failed) == failed
    full.vendor.busy = set()
    full.vendor.script = plays("at last")
    assert (await full.ask(anna, key="k", model="large")).reply.content == "at last"


async def test_what_attaches_or_is_replayed_needs_no_room(full: World) -> None:
    anna = await full.somebody()
    first = await full.ask(anna, key="k")
    version = await full.messages.regenerate(anna, first.reply.id, key="again")
    full.vendor.busy = {None}

    assert (await full.send(anna, key="k")).replayed
    repeated = await full.messages.regenerate(anna, first.reply.id, key="again")
    assert (repeated.replayed, repeated.turn.reply.id) == (True, version.turn.reply.id)
