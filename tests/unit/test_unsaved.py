"""What a user does not want kept: it lives for half an hour, works like any other turn, and is nowhere else."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import fields, replace

import pytest

from chatassist.adapters.llm.scripted import plays
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.domain.errors import (
    IdempotencyMismatch,
    LlmUnavailable,
    MessageNotFound,
    SessionNotFound,
    StoreUnavailable,
)
from chatassist.domain.model import Preferences, User
from chatassist.domain.ports.places import Places
from chatassist.domain.ports.replies import Delta, Ended
from chatassist.domain.replies import claims
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import Draft, Feedback, Rating, Status, Turn
from tests.unit.worlds import World, until

KEY = "key-1"
IDLE = 30 * 60


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(script=plays("secret answer"), models={"large"}) as world:
        yield world


@pytest.fixture
async def saving(world: World) -> User:
    """Anna, who has everything saved."""
    return await world.somebody("anna")


@pytest.fixture
async def anna(saving: User) -> User:
    """Anna, who wants nothing saved."""
    return replace(saving, preferences=Preferences(save_history=False))


async def ask(world: World, anna: User, **draft: str | None) -> Turn:
    return await world.ask(anna, "secret question", **draft)


def heard(world: World) -> list[str]:
    return [one.content for one in world.vendor.prompts[-1].utterances]


def saved_of(world: World) -> str:
    """Everything that the database holds, as text."""
    inner = world.store.inner
    assert isinstance(inner, MemoryStore)
    return "".join(f"{table.name}: {getattr(inner._tables, table.name)}\n" for table in fields(inner._tables))


async def kept(world: World, turn: Turn) -> Turn | None:
    return await world.unsaved.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))


# --- Nowhere else ---------------------------------------------------------------------------------------------------


async def test_nothing_of_it_reaches_the_database_or_a_log(
    world: World, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    go_on = asyncio.Event()
    world.vendor.script = plays("secret answer", go_on, LlmUnavailable())
    turn = (await world.send(anna, "secret question", key="secret-key")).turn
    await until(lambda: world.vendor.speaking)
    await asyncio.sleep(0)
    await world.engine.save()
    await world.engine.look_for_stopped()
    assert world.vendor.speaking
    go_on.set()
    await world.end_of(turn)
    world.vendor.script = plays("secret answer")
    await ask(world, anna, key="secret-key")  # begins it again
    again = await world.messages.regenerate(anna, turn.reply.id, key="secret-version")
    await world.end_of(again.turn)
    await world.replies.rate(anna, turn.reply.id, Feedback(rating=Rating.LIKE, comment="secret comment"))
    await ask(world, anna, session_id=turn.message.session_id)
    await world.replies.delete(anna, turn.reply.id)
    await world.upkeep.reap()
    await world.upkeep.purge()

    ids = (turn.reply.id, again.turn.reply.id, turn.message.id, turn.message.session_id)
    assert anna.id in saved_of(world)
    assert not [word for word in ("secret", *ids) if word in saved_of(world)]
    assert not [word for word in ("question", "answer", "comment") if f"secret {word}" in caplog.text]


async def test_a_session_shows_nothing_of_it(world: World, anna: User) -> None:
    turn = await ask(world, anna)

    with pytest.raises(SessionNotFound):
        await world.sessions.latest(anna, turn.message.session_id)


# --- It works like any other turn -----------------------------------------------------------------------------------


async def test_it_is_answered_shown_followed_rated_and_made_again(world: World, anna: User) -> None:
    turn = await ask(world, anna)

    assert (turn.saved, turn.reply.status, turn.reply.content) == (False, "complete", "secret answer")
    assert await kept(world, turn) == turn == await world.get(anna, turn.reply.id)
    assert [type(event) for event in await world.events(turn)] == [Delta, Ended]
    rating = Feedback(rating=Rating.DISLIKE)
    assert (await world.replies.rate(anna, turn.reply.id, rating)).turn.reply.feedback == rating
    again = await world.end_of((await world.messages.regenerate(anna, turn.reply.id)).turn)
    shown = await world.replies.get(anna, again.reply.id)
    assert (again.reply.version, shown.versions) == (2, [turn.reply.id, again.reply.id])
    assert await world.replies.delete(anna, turn.reply.id) == 3


async def test_another_user_does_not_find_it(world: World, anna: User) -> None:
    boris = replace(await world.somebody("boris"), preferences=Preferences(save_history=False))
    turn = await ask(world, anna)

    for asking in (
        world.replies.get(boris, turn.reply.id),
        world.replies.stop(boris, turn.reply.id),
        world.replies.delete(boris, turn.reply.id),
        world.messages.regenerate(boris, turn.reply.id),
    ):
        with pytest.raises(MessageNotFound):
            await asking
    for user in (boris, await world.somebody("boris")):
        with pytest.raises(SessionNotFound):
            await world.send(user, session_id=turn.message.session_id)


async def test_it_is_stopped_with_its_text(world: World, anna: User) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)

    stopped = (await world.replies.stop(anna, turn.reply.id)).turn

    assert (stopped.reply.status, stopped.reply.content) == ("stopped", "half")
    assert world.vendor.speaking == 0


async def test_its_text_so_far_is_saved_where_it_lives(world: World, anna: User) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(anna)).turn
    await until(lambda: world.vendor.speaking)
    await asyncio.sleep(0)

    await world.engine.save()

    found = await kept(world, turn)
    assert found
    assert (found.reply.content, found.reply.seq) == ("half", 1)


async def test_one_whose_process_lapsed_is_interrupted_and_begun_again(world: World, anna: User) -> None:
    world.vendor.script = plays("half", asyncio.Event())
    turn = (await world.send(anna, "secret question", key=KEY)).turn
    await until(lambda: world.vendor.speaking)
    world.clock.advance(VALID_SECONDS)

    assert (await world.get(anna, turn.reply.id)).reply.reason == "reply_interrupted"

    world.vendor.script = plays("whole")
    again = await ask(world, anna, key=KEY)
    assert (again.reply.id, again.reply.attempt, again.reply.content) == (turn.reply.id, 1, "whole")
    await until(lambda: not world.vendor.speaking)


# --- Keys -----------------------------------------------------------------------------------------------------------


async def test_its_key_is_known_while_it_lives(world: World, anna: User, saving: User) -> None:
    turn = await ask(world, anna, key=KEY)

    for user in (anna, saving):  # whatever the setting is by now
        for session_id in (None, "", turn.message.session_id):
            sent = await world.send(user, "secret question", key=KEY, session_id=session_id)
            assert (sent.replayed, sent.turn) == (True, turn)
    with pytest.raises(IdempotencyMismatch):
        await world.send(anna, "another", key=KEY)
    await world.replies.delete(anna, turn.reply.id)
    with pytest.raises(MessageNotFound):
        await world.send(anna, "secret question", key=KEY)


async def test_a_saved_turns_key_is_known_when_nothing_is_to_be_saved_any_more(
    world: World, anna: User, saving: User
) -> None:
    turn = await world.ask(saving, "hello", key=KEY)

    sent = await world.send(anna, "hello", key=KEY, session_id=turn.message.session_id)

    assert (sent.replayed, sent.turn) == (True, turn)


async def test_sends_at_once_with_one_key_are_one_turn(world: World, anna: User) -> None:
    sent = await asyncio.gather(*(world.send(anna, key=KEY) for _ in range(10)))

    assert sorted(each.replayed for each in sent) == [False] + [True] * 9
    assert len(world.vendor.prompts) == 1


class AgreedPlaces(Places):
    """Places that several processes agree on; `taken`: theirs in common."""

    def __init__(self, taken: dict[str, tuple[bool, Places]]) -> None:
        self._taken = taken

    async def take(self, user_id: str, key: str, *, saved: bool) -> bool:
        held, by = self._taken.get(key, (saved, self))
        if held is not saved and by is not self:
            return False
        self._taken[key] = saved, self
        return True


@pytest.mark.parametrize("first_is_saved", [True, False])
async def test_a_key_used_in_two_processes_for_a_saved_and_an_unsaved_turn_is_one_turn(
    world: World, anna: User, saving: User, first_is_saved: bool
) -> None:
    one, other = (saving, anna) if first_is_saved else (anna, saving)
    async with World(beside=world) as elsewhere:
        taken: dict[str, tuple[bool, Places]] = {}
        for each in (world, elsewhere):
            await each.lease.ensure()
            object.__setattr__(each.stores, "places", AgreedPlaces(taken))
        door, take = asyncio.Event(), world.stores.places.take

        async def hesitate(*named: str, saved: bool) -> bool:
            given = await take(*named, saved=saved)
            await door.wait()
            return given

        object.__setattr__(world.stores.places, "take", hesitate)
        first = asyncio.create_task(world.send(one, key=KEY))
        await until(lambda: taken)

        with pytest.raises(StoreUnavailable):
            await elsewhere.send(other, key=KEY)
        late = asyncio.create_task(elsewhere.send(other, key=KEY))
        door.set()

        sent = await asyncio.gather(first, late)
        assert [each.replayed for each in sent] == [False, True]
        assert sent[0].turn.reply.id == sent[1].turn.reply.id
        assert sent[0].turn.saved is first_is_saved
        assert len(world.vendor.prompts + elsewhere.vendor.prompts) == 1


# --- Saved or unsaved for life --------------------------------------------------------------------------------------


async def test_an_unsaved_session_stays_unsaved_when_the_setting_changes(
    world: World, anna: User, saving: User
) -> None:
    session = (await ask(world, anna)).message.session_id

    turn = await world.ask(saving, "secret question 2", session_id=session)

    assert (turn.saved, turn.message.session_id, turn.message.position) == (False, session, 2)
    assert heard(world) == ["secret question", "secret answer", "secret question 2"]
    assert "secret" not in saved_of(world)


async def test_a_saved_session_is_continued_in_a_new_unsaved_one_and_stays_as_it_was(
    world: World, anna: User, saving: User
) -> None:
    world.vendor.script = plays("public answer")
    saved = await world.ask(saving, "public question")
    session = saved.message.session_id
    world.vendor.script = plays("secret answer")

    turn = await ask(world, anna, session_id=session)

    assert (turn.saved, turn.message.position) == (False, 1)
    assert turn.message.session_id != session
    assert heard(world) == ["public question", "public answer", "secret question"]
    _, turns = await world.sessions.latest(anna, session)
    assert list(turns) == [saved]
    assert "secret" not in saved_of(world)

    await world.ask(anna, "secret question 2", session_id=turn.message.session_id)
    both = ["public question", "public answer", "secret question", "secret answer"]
    assert heard(world) == [*both, "secret question 2"]
    await world.ask(saving, "public question 2", session_id=session)
    assert heard(world) == ["public question", "public answer", "public question 2"]


async def test_a_continuation_knows_only_what_was_said_before_it_began(world: World, anna: User, saving: User) -> None:
    session = (await world.ask(saving, "one")).message.session_id
    turn = await ask(world, anna, session_id=session)
    await world.ask(saving, "later", session_id=session)

    await world.ask(anna, "again", session_id=turn.message.session_id)
    assert heard(world) == ["one", "secret answer", "secret question", "secret answer", "again"]


async def test_the_background_of_a_continuation_goes_with_another_version_and_another_attempt(
    world: World, anna: User, saving: User
) -> None:
    session = (await world.ask(saving, "one")).message.session_id
    world.vendor.script = plays(LlmUnavailable())
    failed = await ask(world, anna, session_id=session, key=KEY)
    world.vendor.script = plays("secret answer")

    await ask(world, anna, session_id=session, key=KEY)
    assert heard(world) == ["one", "secret answer", "secret question"]
    await world.end_of((await world.messages.regenerate(anna, failed.reply.id)).turn)
    assert heard(world) == ["one", "secret answer", "secret question"]


async def test_a_repeated_continuation_is_the_same_turn_however_its_session_is_named(
    world: World, anna: User, saving: User
) -> None:
    session = (await world.ask(saving, "one")).message.session_id
    turn = await ask(world, anna, session_id=session, key=KEY)

    for named in (session, turn.message.session_id, None, ""):
        sent = await world.send(anna, "secret question", key=KEY, session_id=named)
        assert (sent.replayed, sent.turn) == (True, turn)
    other = (await world.ask(saving)).message.session_id
    with pytest.raises(IdempotencyMismatch):
        await world.send(anna, "secret question", key=KEY, session_id=other)


@pytest.mark.parametrize("session", ["f" * 32, "nonsense"])
async def test_a_session_that_is_neither_saved_nor_unsaved_is_not_found(
    world: World, anna: User, saving: User, session: str
) -> None:
    for user in (anna, saving):
        with pytest.raises(SessionNotFound):
            await world.send(user, session_id=session, key=KEY)
    assert await world.stores.find_by_key(KEY, anna) is None


async def test_another_users_saved_session_is_not_continued(world: World, anna: User) -> None:
    session = (await world.ask(await world.somebody("boris"))).message.session_id

    with pytest.raises(SessionNotFound):
        await ask(world, anna, session_id=session)


# --- The database is away -------------------------------------------------------------------------------------------


async def test_where_the_saved_session_cannot_be_read_its_continuation_is_not_claimed(
    world: World, anna: User, saving: User
) -> None:
    session = (await world.ask(saving, "one")).message.session_id
    turn = await ask(world, anna, session_id=session)
    going_on = {"session_id": turn.message.session_id, "key": KEY}
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await world.send(anna, "and?", **going_on)

    world.store.away = False
    assert await world.stores.find_by_key(KEY, anna) is None
    assert (await world.ask(anna, "and?", **going_on)).reply.status is Status.COMPLETE


async def test_a_claim_whose_background_cannot_be_read_leaves_nothing_running(
    world: World, anna: User, saving: User
) -> None:
    """The database goes away at the last moment: after everything that is read before the claim."""
    session = (await world.ask(saving, "one")).message.session_id
    turn = await ask(world, anna, session_id=session)
    draft = {"session_id": turn.message.session_id, "key": KEY}
    claim = await world.messages._claims.unsaved(anna, Draft(text="and?", **draft))
    world.store.away = True

    with pytest.raises(StoreUnavailable):
        await world.engine.start(claim)

    world.store.away = False
    assert await world.stores.find(claim.reply_id, anna.id) is None


@pytest.mark.parametrize("steps", range(14))
async def test_who_goes_away_at_any_moment_leaves_a_turn_that_is_finished_or_none(
    world: World, anna: User, saving: User, steps: int
) -> None:
    session = (await world.ask(saving, "one")).message.session_id
    sending = asyncio.create_task(world.send(anna, "secret question", session_id=session, key=KEY))
    for _ in range(steps):
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    turn = await ask(world, anna, session_id=session, key=KEY)

    assert (turn.saved, turn.reply.status, turn.reply.attempt) == (False, "complete", 0)
    assert len(world.vendor.prompts) == 2
    assert "secret question" not in saved_of(world)


# --- Half an hour ---------------------------------------------------------------------------------------------------


async def test_it_is_gone_half_an_hour_after_its_sessions_last_turn(world: World, anna: User) -> None:
    first = await ask(world, anna, key=KEY)
    session = first.message.session_id
    world.clock.advance(IDLE - 1)
    await world.ask(anna, "secret question 2", session_id=session)
    world.clock.advance(IDLE - 1)
    assert await world.get(anna, first.reply.id) == first

    world.clock.advance(1)

    with pytest.raises(MessageNotFound):
        await world.get(anna, first.reply.id)
    with pytest.raises(SessionNotFound):
        await world.send(anna, session_id=session)
    assert not (await world.send(anna, "a new one", key=KEY)).replayed


@pytest.mark.parametrize("use", ["another version", "another attempt"])
async def test_another_version_or_attempt_is_a_use_of_its_session(world: World, anna: User, use: str) -> None:
    world.vendor.script = plays(LlmUnavailable())
    turn = await ask(world, anna, key=KEY)
    world.clock.advance(IDLE - 1)
    if use == "another version":
        await world.end_of((await world.messages.regenerate(anna, turn.reply.id)).turn)
    else:
        await ask(world, anna, key=KEY)

    world.clock.advance(IDLE - 1)
    assert await world.get(anna, turn.reply.id)
    world.clock.advance(1)
    with pytest.raises(MessageNotFound):
        await world.get(anna, turn.reply.id)


async def test_looking_rating_and_deleting_do_not_prolong_it(world: World, anna: User) -> None:
    first = await ask(world, anna)
    second = await world.ask(anna, "and?", session_id=first.message.session_id)
    world.clock.advance(60)
    await ask(world, anna)  # a session that is used later
    world.clock.advance(IDLE - 61)
    await world.replies.rate(anna, first.reply.id, Feedback(rating=Rating.LIKE))
    await world.replies.delete(anna, second.reply.id)
    assert await world.get(anna, first.reply.id)

    world.clock.advance(1)

    with pytest.raises(MessageNotFound):
        await world.get(anna, first.reply.id)


async def test_what_nobody_asks_for_is_forgotten_too(world: World, anna: User) -> None:
    await ask(world, anna, key="secret-key")
    deleted = await ask(world, anna, key="secret-key-2")
    await world.replies.delete(anna, deleted.reply.id)
    await world.upkeep.forget()
    assert "secret" in str(world.unsaved._tables)
    with pytest.raises(MessageNotFound):
        await ask(world, anna, key="secret-key-2")

    world.clock.advance(IDLE + 1)
    await world.upkeep.forget()

    assert "secret" not in str(world.unsaved._tables)
    assert "forget" in [job.name for job in world.upkeep.jobs()]


async def test_what_is_forgotten_in_the_middle_of_a_wish_is_not_found(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = await ask(world, anna)
    count = world.gate.count_send

    async def slowly(*given: object) -> None:
        await count(*given)  # type: ignore[arg-type]
        world.clock.advance(IDLE)

    monkeypatch.setattr(world.gate, "count_send", slowly)
    with pytest.raises(MessageNotFound):
        await world.messages.regenerate(anna, turn.reply.id)
    with pytest.raises(MessageNotFound):
        await world.replies._stopper.erase(turn)


async def test_a_session_that_never_rests_holds_its_youngest_turns(
    world: World, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "UNSAVED_TURNS", 3)
    first = await ask(world, anna, key=KEY)
    turns = [first, *[await ask(world, anna, session_id=first.message.session_id) for _ in range(4)]]

    for turn in turns[:2]:
        with pytest.raises(MessageNotFound):
            await world.get(anna, turn.reply.id)
    assert [await world.get(anna, turn.reply.id) for turn in turns[2:]] == turns[2:]
    with pytest.raises(MessageNotFound):
        await world.send(anna, "secret question", key=KEY)
