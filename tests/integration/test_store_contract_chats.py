"""What every store promises about sessions and turns, over memory, SQLite and both MySQL drivers."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Status, Usage
from tests.builders import NOW, a_turn, an_end, new_id
from tests.fixtures.databases import AnyStore, in_redis_too
from tests.integration.storing import a_kept_session, keep, turn_of
from tests.integration.test_store_contract_versions import GOOD

SECOND = timedelta(seconds=1)


# --- Conversations --------------------------------------------------------------------------------------------------


@in_redis_too
async def test_a_session_is_its_owners_alone(store: AnyStore) -> None:
    session = await a_kept_session(store)
    later = NOW + timedelta(microseconds=1)
    await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, later))
    touched = session.began(later, turns=1, said=None)
    assert await store.read(lambda tx: tx.sessions.get(session.id, session.user_id)) == touched
    for session_id, user_id in ((session.id, new_id()), (new_id(), session.user_id)):
        with pytest.raises(SessionNotFound):
            await store.read(lambda tx, ids=(session_id, user_id): tx.sessions.get(*ids))  # type: ignore[misc]
        with pytest.raises(SessionNotFound):
            await store.write(
                lambda tx, ids=(session_id, user_id): tx.sessions.touch(*ids, NOW)  # type: ignore[misc]
            )
    assert await store.read(lambda tx: tx.sessions.get(session.id, session.user_id)) == touched


@pytest.mark.parametrize("turns", [0, 1])
@in_redis_too
async def test_a_session_keeps_the_model_that_was_named_last(store: AnyStore, turns: int) -> None:
    """Whatever begins, a new turn or another reply: a claim that names none finds it, in the window it reads anyway."""
    session = await a_kept_session(store, model="first")

    async def claim(named: str | None) -> str | None:
        async def work(tx: Transaction) -> str | None:
            await tx.sessions.touch(session.id, session.user_id, NOW, turns=turns, model=named)
            return (await tx.turns.window(session.id, 5)).model

        return await store.write(work)

    assert [await claim(named) for named in (None, "second", None, "m" * 128, None)] == [
        *("first", "second", "second"),
        *["m" * 128] * 2,
    ]
    assert (await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))).model == "m" * 128


@in_redis_too
async def test_a_window_tells_the_sessions_model_with_turns_in_it_and_without(store: AnyStore) -> None:
    chosen, other = await a_kept_session(store, model="chosen"), await a_kept_session(store)
    await keep(store, a_turn(chosen, 1, **GOOD), a_turn(other, 1, **GOOD))

    async def models(*session_ids: str) -> list[str | None]:
        return [
            (await store.read(lambda tx, one=one: tx.turns.window(one, 5))).model  # type: ignore[misc]
            for one in session_ids
        ]

    assert await models(chosen.id, other.id) == ["chosen", None]
    await store.write(lambda tx: tx.turns.delete(chosen.id, 1, NOW))
    assert await models(chosen.id, new_id()) == ["chosen", None]


@pytest.mark.parametrize(
    "text", ["👍" * 64_000, "  two blanks, a tab and a line\t\n  ", "'; DROP TABLE users; -- %s :x \\"]
)
@in_redis_too
async def test_any_text_and_every_field_comes_back_as_it_was_stored(store: AnyStore, text: str) -> None:
    session = await a_kept_session(store)
    turn = a_turn(session, text=text, thinking=text, key="a-Z_9", requested_model="m", attempt=3, seq=9)
    await keep(store, turn)
    assert await turn_of(store, turn) == turn
    end = an_end(text, reason="why", model="v", usage=Usage(input_tokens=0, output_tokens=7), at=NOW + SECOND)
    assert await store.write(lambda tx: tx.replies.finish(turn.reply.id, 3, end))
    assert await turn_of(store, turn) == replace(turn, reply=turn.reply.ended(end))


@pytest.mark.parametrize("estimated", [True, False])
@in_redis_too
async def test_what_is_only_estimated_comes_back_as_that(store: AnyStore, estimated: bool) -> None:
    session = await a_kept_session(store)
    usage = Usage(input_tokens=3, output_tokens=4, estimated=estimated)
    await keep(store, whole := a_turn(session, 1, usage=usage), turn := a_turn(session, 2))
    assert await turn_of(store, whole) == whole
    failed = an_end("half", usage=usage, status=Status.FAILED, reason="llm_timeout")
    assert await store.write(lambda tx: tx.replies.finish(turn.reply.id, 0, failed))
    assert await turn_of(store, turn) == replace(turn, reply=turn.reply.ended(failed))
    assert await store.write(lambda tx: tx.replies.restart(turn.reply.id, 0, "instance-2"))
    assert await turn_of(store, turn) == replace(turn, reply=turn.reply.ended(failed).restarted("instance-2"))


@pytest.mark.parametrize("commits", [True, False])
@in_redis_too
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
