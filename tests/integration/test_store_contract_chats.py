"""What every store promises about sessions, turns and their ends, over memory, SQLite and both MySQL drivers."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import FinishReason, Status, Turn, Usage
from tests.builders import NOW, a_session, a_turn, a_user, an_end, new_id
from tests.fixtures.databases import AnyStore, in_redis_too
from tests.integration.storing import a_kept_session, keep

SECOND = timedelta(seconds=1)


async def turn_of(store: AnyStore, turn: Turn) -> Turn | None:
    return await store.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))


async def finish(store: AnyStore, turn: Turn, attempt: int = 0, content: str | None = "an answer") -> bool:
    return await store.write(lambda tx: tx.replies.finish(turn.reply.id, attempt, an_end(content)))


# --- Conversations --------------------------------------------------------------------------------------------------


@in_redis_too
async def test_a_session_is_its_owners_alone(store: AnyStore) -> None:
    session = await a_kept_session(store)
    later = NOW + timedelta(microseconds=1)
    await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, later))
    touched = replace(session, turns=1, updated_at=later)
    assert await store.read(lambda tx: tx.sessions.get(session.id, session.user_id)) == touched
    for session_id, user_id in ((session.id, new_id()), (new_id(), session.user_id)):
        with pytest.raises(SessionNotFound):
            await store.read(lambda tx, ids=(session_id, user_id): tx.sessions.get(*ids))  # type: ignore[misc]
        with pytest.raises(SessionNotFound):
            await store.write(
                lambda tx, ids=(session_id, user_id): tx.sessions.touch(*ids, NOW)  # type: ignore[misc]
            )
    assert await store.read(lambda tx: tx.sessions.get(session.id, session.user_id)) == touched


@in_redis_too
@pytest.mark.parametrize(
    "text", ["👍" * 64_000, "  two blanks, a tab and a line\t\n  ", "'; DROP TABLE users; -- %s :x \\"]
)
async def test_any_text_and_every_field_comes_back_as_it_was_stored(store: AnyStore, text: str) -> None:
    session = await a_kept_session(store)
    turn = a_turn(session, text=text, key="a-Z_9", requested_model="m", attempt=3)
    await keep(store, turn)
    assert await turn_of(store, turn) == turn
    end = an_end(text, reason="why", model="v", usage=Usage(input_tokens=0, output_tokens=7), at=NOW + SECOND)
    assert await store.write(lambda tx: tx.replies.finish(turn.reply.id, 3, end))
    assert await turn_of(store, turn) == replace(turn, reply=turn.reply.ended(end))


@in_redis_too
@pytest.mark.parametrize("commits", [True, False])
async def test_a_turn_that_is_just_being_written_can_be_waited_for(store: AnyStore, commits: bool) -> None:
    """After a lost COMMIT nobody may conclude that there is no turn, while the server is still about to commit it."""
    session = await a_kept_session(store)
    added, go_on = asyncio.Event(), asyncio.Event()

    async def write_slowly(tx: Transaction) -> None:
        await tx.turns.add(turn)
        added.set()
        await go_on.wait()
        if not commits:
            raise SessionNotFound

    turn = a_turn(session)
    writing = asyncio.create_task(store.write(write_slowly))
    await added.wait()
    looking = asyncio.create_task(store.write(lambda tx: tx.turns.find_settled(turn.reply.id, turn.message.user_id)))
    assert not (await asyncio.wait({looking}, timeout=0.2))[0], "it waits"
    go_on.set()
    assert await looking == (turn if commits else None)
    assert ((await asyncio.gather(writing, return_exceptions=True))[0] is None) == commits


@in_redis_too
async def test_a_turn_is_found_by_its_owner_alone_and_never_by_its_question(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, turn := a_turn(session, key="k"))
    assert await store.read(lambda tx: tx.turns.find(turn.reply.id, new_id())) is None
    assert await store.read(lambda tx: tx.turns.find(turn.message.id, session.user_id)) is None
    assert await store.read(lambda tx: tx.turns.find_by_key("k", new_id())) is None
    assert await store.read(lambda tx: tx.turns.find_by_key("K", session.user_id)) is None


@in_redis_too
async def test_a_key_is_free_for_every_user_and_turns_without_one_never_collide(store: AnyStore) -> None:
    for session in (await a_kept_session(store), await a_kept_session(store)):
        await keep(store, a_turn(session, 1, key="same"), a_turn(session, 2), a_turn(session, 3))


@in_redis_too
async def test_the_window_holds_the_youngest_turns_that_speak_oldest_first(store: AnyStore) -> None:
    session = await a_kept_session(store)
    states: list[dict[str, Any]] = [
        {"status": Status.COMPLETE, "content": "too old"},
        {"status": Status.COMPLETE, "content": "one", "finish_reason": FinishReason.STOP},
        {"status": Status.COMPLETE, "content": "refused", "finish_reason": FinishReason.BLOCKED},
        {"status": Status.STOPPED, "content": " ", "finish_reason": FinishReason.STOPPED},
        {"status": Status.STOPPED, "content": "", "finish_reason": FinishReason.STOPPED},
        {"status": Status.FAILED, "content": "half", "finish_reason": FinishReason.ERROR},
        {"status": Status.COMPLETE, "content": "three", "finish_reason": None},
        {"status": Status.RUNNING, "content": "saved so far"},
    ]
    turns = [a_turn(session, position, **state) for position, state in enumerate(states, 1)]
    await keep(store, *turns[1::2], *turns[::2], a_turn(await a_kept_session(store), 9))
    for _ in turns:
        await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW))

    window = await store.read(lambda tx: tx.turns.window(session.id, 3))
    assert window.accepted == len(turns)
    assert window.turns == [turns[1], turns[3], turns[6]]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 2)) == turns[-2:]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 99)) == turns


@in_redis_too
async def test_the_window_of_a_silent_session_counts_and_that_of_none_is_empty(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW))
    await keep(store, a_turn(session))
    window = await store.read(lambda tx: tx.turns.window(session.id, 3))
    assert (window.accepted, list(window.turns)) == (1, [])
    window = await store.read(lambda tx: tx.turns.window(new_id(), 3))
    assert (window.accepted, list(window.turns)) == (0, [])


# --- Ends -----------------------------------------------------------------------------------------------------------


@in_redis_too
async def test_an_attempt_ends_once_and_only_by_its_own_number(store: AnyStore) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store), attempt=1, content="so far"))
    assert not await finish(store, turn, attempt=0)
    assert not await finish(store, a_turn(a_session(a_user())), attempt=1)
    assert await turn_of(store, turn) == turn
    assert await finish(store, turn, attempt=1, content=None)
    ended = await turn_of(store, turn)
    assert ended == replace(turn, reply=turn.reply.ended(an_end(None)))
    assert ended.reply.content == "so far"
    assert not await finish(store, turn, attempt=1, content="too late")
    assert await turn_of(store, turn) == ended


@in_redis_too
async def test_of_many_that_end_one_attempt_exactly_one_succeeds(store: AnyStore) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store)))
    assert sum(await asyncio.gather(*(finish(store, turn, content=f"by {n}") for n in range(10)))) == 1


@pytest.mark.parametrize("content", [None, "replaced"])
async def test_orphans_are_ended_and_what_lives_or_has_ended_is_left(store: AnyStore, content: str | None) -> None:
    session = await a_kept_session(store)
    ours, expired, unknown = (
        a_turn(session, position, instance_id=name, content="so far")
        for position, name in enumerate(("alive", "expired", "unknown"), 1)
    )
    over = a_turn(session, 4, instance_id="unknown", status=Status.COMPLETE)
    await keep(store, ours, expired, unknown, over)
    await store.write(lambda tx: tx.instances.renew("alive", NOW + timedelta(microseconds=1)))
    await store.write(lambda tx: tx.instances.renew("expired", NOW))
    end = an_end(content, status=Status.FAILED, finish_reason=FinishReason.ERROR, reason="reply_interrupted")
    assert [await store.write(lambda tx: tx.replies.finish_orphans(NOW, end)) for _ in range(2)] == [2, 0]
    expected = [ours, *(replace(turn, reply=turn.reply.ended(end)) for turn in (expired, unknown)), over]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 9)) == expected


async def test_an_instance_lives_until_its_time_is_over_or_it_is_removed(store: AnyStore) -> None:
    async def alive(name: str) -> bool:
        return await store.read(lambda tx: tx.instances.is_alive(name, NOW))

    assert not await alive("one")
    for until in (NOW, NOW + SECOND, NOW + SECOND):
        await store.write(lambda tx, until=until: tx.instances.renew("one", until))  # type: ignore[misc]
        assert await alive("one") is (until > NOW)
    await store.write(lambda tx: tx.instances.renew("two", NOW - SECOND))
    assert [await store.write(lambda tx: tx.instances.purge(NOW)) for _ in range(2)] == [1, 0]
    assert await alive("one")
    for _ in range(2):
        await store.write(lambda tx: tx.instances.remove("one"))
    assert not await alive("one")
