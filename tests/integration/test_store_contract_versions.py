"""What every store promises about the versions of a reply, what a session's window shows of them, and deleted turns."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.adapters.persistence.sql import SqlStore
from chatassist.domain.errors import MessageNotFound, SessionNotFound
from chatassist.domain.model import Session, TitleSource
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Version
from chatassist.domain.turns import Exchange, Feedback, FinishReason, Rating, Status, Turn, Usage
from tests.builders import NOW, a_save, a_session, a_turn, a_user, a_version, an_end, new_id
from tests.fixtures.databases import AnyStore, in_redis_too
from tests.integration.storing import a_kept_session, keep, keep_versions, turn_of

GOOD: dict[str, Any] = {"status": Status.COMPLETE, "content": "good", "finish_reason": FinishReason.STOP}
STOPPED: dict[str, Any] = {"status": Status.STOPPED, "content": "cut", "finish_reason": FinishReason.STOPPED}
SILENT: dict[str, Any] = {"status": Status.STOPPED, "content": "", "finish_reason": FinishReason.STOPPED}
BLOCKED: dict[str, Any] = {"status": Status.COMPLETE, "content": "no", "finish_reason": FinishReason.BLOCKED}
FAILED: dict[str, Any] = {"status": Status.FAILED, "content": "half", "finish_reason": FinishReason.ERROR}
RUNNING: dict[str, Any] = {"status": Status.RUNNING, "content": "so far"}


async def exchanges_of(store: AnyStore, session: Session, limit: int = 9, **before: int) -> list[Exchange]:
    return list((await store.read(lambda tx: tx.turns.window(session.id, limit, **before))).exchanges)


async def versions_of(store: AnyStore, turn: Turn) -> Sequence[Version]:
    return await store.read(lambda tx: tx.turns.versions(turn.message.session_id, turn.message.position))


async def last_position(store: AnyStore, session: Session) -> int:
    return await store.read(lambda tx: tx.turns.last_position(session.id))


async def delete(store: AnyStore, turn: Turn) -> int:
    at = turn.message
    return await store.write(lambda tx: tx.turns.delete(at.session_id, at.position, NOW))


# --- The window -----------------------------------------------------------------------------------------------------


@in_redis_too
async def test_the_window_holds_the_youngest_turns_that_speak_oldest_first(store: AnyStore) -> None:
    session = await a_kept_session(store)
    states = [
        {**GOOD, "content": "too old"},
        {**GOOD, "content": "one"},
        BLOCKED,
        {**STOPPED, "content": " "},
        SILENT,
        FAILED,
        {**GOOD, "content": "three", "finish_reason": None},
        RUNNING,
    ]
    turns = [a_turn(session, position, f"asked {position}", **state) for position, state in enumerate(states, 1)]
    await keep(store, *turns[1::2], *turns[::2], a_turn(await a_kept_session(store), 9, **GOOD))
    for _ in turns:
        await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW))

    window = await store.read(lambda tx: tx.turns.window(session.id, 3))
    assert window.accepted == len(turns)
    assert list(window.exchanges) == [
        Exchange(position=2, question="asked 2", answer="one"),
        Exchange(position=4, question="asked 4", answer=" "),
        Exchange(position=7, question="asked 7", answer="three"),
    ]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 2)) == turns[-2:]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 99)) == turns


@in_redis_too
async def test_the_window_before_a_position_holds_nothing_from_there_on(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, *(a_turn(session, position, **GOOD) for position in range(1, 6)))
    for before, positions in ((6, [3, 4, 5]), (4, [1, 2, 3]), (2, [1]), (1, []), (0, [])):
        found = await exchanges_of(store, session, 3, before=before)
        assert [exchange.position for exchange in found] == positions


@in_redis_too
async def test_the_window_of_a_silent_session_counts_and_that_of_none_is_empty(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW))
    await keep(store, a_turn(session))
    for session_id, accepted in ((session.id, 1), (new_id(), 0)):
        window = await store.read(lambda tx, one=session_id: tx.turns.window(one, 3))  # type: ignore[misc]
        assert (window.accepted, list(window.exchanges)) == (accepted, [])


@pytest.mark.parametrize(
    ("states", "shown", "speaks"),
    [
        ([GOOD, GOOD], 2, True),
        ([GOOD, STOPPED], 2, True),
        ([STOPPED, GOOD, FAILED, RUNNING], 2, True),
        ([GOOD, SILENT], 1, True),
        ([GOOD, BLOCKED], 2, False),
        ([BLOCKED, GOOD], 2, True),
        ([BLOCKED, FAILED], 1, False),
        ([FAILED, RUNNING], 2, False),
        ([RUNNING, FAILED], 2, False),
        ([SILENT, FAILED, FAILED], 3, False),
        ([FAILED, GOOD, SILENT, RUNNING, FAILED], 2, True),
    ],
    ids=lambda value: ",".join(f"{one['status']}:{one['content']}" for one in value) if isinstance(value, list) else "",
)
@in_redis_too
async def test_a_turn_shows_its_newest_good_version_else_its_newest(
    store: AnyStore, states: list[dict[str, Any]], shown: int, speaks: bool
) -> None:
    session = await a_kept_session(store)
    first = a_turn(session, 2, "asked", **states[0])
    versions = [first, *(a_version(first, number, **state) for number, state in enumerate(states[1:], 2))]
    await keep(store, a_turn(session, 1, **GOOD), first, a_turn(session, 3, **GOOD))
    await keep_versions(store, *reversed(versions[1:]))

    seen = await store.read(lambda tx: tx.turns.latest(session.id, 9))
    assert [turn.message.position for turn in seen] == [1, 2, 3]
    assert seen[1] == versions[shown - 1]
    answer = versions[shown - 1].reply.content
    expected = [Exchange(position=2, question="asked", answer=answer)] if speaks else []
    assert [one for one in await exchanges_of(store, session) if one.position == 2] == expected
    assert len(await exchanges_of(store, session, 2)) == 2, "a version counts for nothing of its own"


# --- Versions -------------------------------------------------------------------------------------------------------


@in_redis_too
async def test_versions_stand_beside_each_other_oldest_first_and_each_is_found_by_its_id(store: AnyStore) -> None:
    session = await a_kept_session(store)
    first = a_turn(session, 1, key="k-1", **GOOD)
    second, third = a_version(first, 2, key="k-2", requested_model="m", **FAILED), a_version(first, 3, **RUNNING)
    await keep(store, first, a_turn(session, 2, **GOOD))
    await keep_versions(store, second, third)
    assert await versions_of(store, first) == [
        Version(reply_id=turn.reply.id, number=turn.reply.version, status=turn.reply.status)
        for turn in (first, second, third)
    ]
    for turn in (first, second, third):
        assert await turn_of(store, turn) == turn
    assert await store.read(lambda tx: tx.turns.find_by_key("k-2", session.user_id)) == second
    nowhere = await store.read(lambda tx: tx.turns.versions(session.id, 3))
    assert list(nowhere) == list(await store.read(lambda tx: tx.turns.versions(new_id(), 1))) == []


@in_redis_too
async def test_a_version_under_a_key_that_is_in_use_is_not_stored(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, first := a_turn(session, 1, key="k-1", **GOOD))
    with pytest.raises(Taken):
        await keep_versions(store, a_version(first, 2, key="k-1"))
    assert len(await versions_of(store, first)) == 1
    await keep_versions(store, a_version(first, 2, key="k-2"))


@in_redis_too
async def test_the_last_position_is_that_of_the_youngest_turn_that_is_left(store: AnyStore) -> None:
    session = await a_kept_session(store)
    assert await last_position(store, session) == 0
    turns = [a_turn(session, position, key=f"k-{position}") for position in (1, 2, 5)]
    await keep(store, *turns)
    await keep_versions(store, a_version(turns[0], 2))
    assert await last_position(store, session) == 5
    for turn, left in ((turns[2], 2), (turns[0], 2), (turns[1], 0)):
        await delete(store, turn)
        assert await last_position(store, session) == left


@in_redis_too
async def test_a_session_can_be_held_without_being_used(store: AnyStore) -> None:
    session = await a_kept_session(store)
    later = NOW + timedelta(seconds=1)
    await store.write(lambda tx: tx.sessions.hold(session.id, session.user_id))
    held = await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))
    assert held == replace(session, revision=session.revision + 1)
    await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, later, turns=0))
    used = await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))
    assert used == held.began(later, turns=0, said=None)
    for user_id, session_id in ((session.user_id, new_id()), (new_id(), session.id)):
        with pytest.raises(SessionNotFound):
            await store.write(lambda tx, s=session_id, u=user_id: tx.sessions.hold(s, u))  # type: ignore[misc]


@in_redis_too
async def test_a_session_that_loses_its_first_turn_is_called_after_the_next_unless_its_user_named_it(
    store: AnyStore,
) -> None:
    """Else the title would go on telling what was deleted for good."""
    await keep(store, user := a_user())
    named = a_session(user, title="mine", title_source=TitleSource.USER)
    called = a_session(user, title="first", title_source=TitleSource.MODEL)
    for session in (named, called):
        turns = [a_turn(session, position, text=f"question {position}", **GOOD) for position in (1, 2, 3)]
        await keep(store, session, *turns)
        seen = []
        for turn in (turns[1], turns[0], turns[2]):
            await delete(store, turn)
            now = await store.read(lambda tx, one=session: tx.sessions.get(one.id, one.user_id))  # type: ignore[misc]
            seen.append((now.title, now.preview))
        previews = ("good", "good", "")
        titles = ("mine",) * 3 if session is named else ("first", "question 3", "")
        assert seen == list(zip(titles, previews, strict=True))
        await store.write(lambda tx, one=session: tx.sessions.touch(one.id, one.user_id, NOW, said="a\n new start"))  # type: ignore[misc]
        now = await store.read(lambda tx, one=session: tx.sessions.get(one.id, one.user_id))  # type: ignore[misc]
        assert (now.title, now.preview) == ("mine" if session is named else "a new start", "a new start")


@in_redis_too
async def test_a_list_shows_the_youngest_turn_whichever_ends_last(store: AnyStore) -> None:
    await keep(store, user := a_user(), session := a_session(user, turns=2, running=2))
    older, younger = a_turn(session, 1), a_turn(session, 2)
    await keep(store, older, younger)
    for turn, answer in ((younger, "young"), (older, "old")):
        assert await store.apply(lambda tx, t=turn, a=answer: tx.replies.finish(t.reply.id, 0, an_end(a)))  # type: ignore[misc]
    assert (await store.read(lambda tx: tx.sessions.get(session.id, user.id))).preview == "young"


# --- Deleting -------------------------------------------------------------------------------------------------------

SECRET = "0f4c: 不可留下的话"


async def a_turn_full_of_secrets(store: AnyStore, session: Session) -> list[Turn]:
    told: dict[str, Any] = {
        "content": SECRET,
        "thinking": SECRET,
        "requested_model": SECRET,
        "model": SECRET,
        "reason": SECRET,
        "usage": Usage(input_tokens=1, output_tokens=2),
        "feedback": Feedback(rating=Rating.LIKE, comment=SECRET),
    }
    first = a_turn(session, 1, SECRET, key="k-1", status=Status.COMPLETE, **told)
    others = [
        a_version(first, 2, key="k-2", status=Status.FAILED, **told),
        a_version(first, 3, status=Status.STOPPED, **told),
        a_version(first, 4, key="k-4", **told),
    ]
    await keep(store, first)
    await keep_versions(store, *others)
    return [first, *others]


async def everything_in(store: AnyStore) -> str:
    if isinstance(store, SqlStore):
        async with store._connections._engine.connect() as db:
            return str((await db.execute(text("SELECT * FROM messages"))).all())
    assert isinstance(store, MemoryStore)
    return repr(store._tables)


async def test_of_a_deleted_turn_no_text_is_left_in_any_column(store: AnyStore) -> None:
    session = await a_kept_session(store)
    turns = await a_turn_full_of_secrets(store, session)
    assert SECRET in await everything_in(store)
    assert [await delete(store, turns[0]) for _ in range(2)] == [5, 0]
    assert SECRET not in await everything_in(store)
    for turn in turns:
        assert await turn_of(store, turn) is None
    assert list(await versions_of(store, turns[0])) == []
    assert list(await store.read(lambda tx: tx.turns.latest(session.id, 9))) == []
    assert await exchanges_of(store, session) == []


async def test_nothing_comes_back_into_a_deleted_turn(store: AnyStore) -> None:
    session = await a_kept_session(store)
    first, failed, stopped, running = await a_turn_full_of_secrets(store, session)
    await store.write(lambda tx: tx.instances.renew("instance-1", NOW + timedelta(seconds=1)))
    await delete(store, first)
    assert not await store.write(lambda tx: tx.replies.finish(running.reply.id, 0, an_end(SECRET)))
    assert not await store.write(lambda tx: tx.replies.restart(failed.reply.id, 0, "instance-1"))
    await store.write(lambda tx: tx.replies.save([a_save(running, 9, SECRET, thinking=SECRET)]))
    feedback = Feedback(rating=Rating.DISLIKE, comment=SECRET)
    for turn in (first, failed, stopped, running):
        await store.write(lambda tx, one=turn.reply.id: tx.replies.rate(one, feedback))  # type: ignore[misc]
    assert list(await store.read(lambda tx: tx.replies.running("instance-1"))) == []
    assert await store.write(lambda tx: tx.replies.finish_orphans(NOW + timedelta(days=1), an_end(None))) == 0
    assert SECRET not in await everything_in(store)
    assert list(await store.read(lambda tx: tx.turns.latest(session.id, 9))) == []


async def test_a_deleted_turn_keeps_its_keys_until_the_purge(store: AnyStore) -> None:
    session = await a_kept_session(store)
    turns = await a_turn_full_of_secrets(store, session)
    await keep(store, other := a_turn(session, 2, key="lives", **GOOD))
    await delete(store, turns[0])
    for key in ("k-1", "k-2", "k-4"):
        with pytest.raises(MessageNotFound):
            await store.read(lambda tx, key=key: tx.turns.find_by_key(key, session.user_id))  # type: ignore[misc]
        with pytest.raises(Taken):
            await keep(store, a_turn(session, 3, key=key))
        assert await store.read(lambda tx, key=key: tx.turns.find_by_key(key, new_id())) is None  # type: ignore[misc]

    later = NOW + timedelta(microseconds=1)
    purges = [await store.write(lambda tx, at=at: tx.turns.purge(at)) for at in (NOW, later, later)]  # type: ignore[misc]
    assert purges == [0, 3, 0]
    assert await store.read(lambda tx: tx.turns.find_by_key("k-1", session.user_id)) is None
    assert await store.read(lambda tx: tx.turns.find_by_key("lives", session.user_id)) == other
    await keep(store, a_turn(session, 3, key="k-1"))


async def test_a_purge_drops_a_thousand_keys_at_a_time(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, turn := a_turn(session, 1, key="k-1"))
    await keep_versions(store, *(a_version(turn, number, key=f"k-{number}") for number in range(2, 1002)))
    await delete(store, turn)
    later = NOW + timedelta(seconds=1)
    assert [await store.write(lambda tx: tx.turns.purge(later)) for _ in range(3)] == [1000, 1, 0]


@in_redis_too
async def test_deleting_a_turn_leaves_all_others_alone(store: AnyStore) -> None:
    session, elsewhere = await a_kept_session(store), await a_kept_session(store)
    turns = [a_turn(session, position, **GOOD) for position in (1, 2, 3)]
    same_place = a_turn(elsewhere, 2, **GOOD)
    await keep(store, *turns, same_place)
    await keep_versions(store, newer := a_version(turns[2], 2, **GOOD))
    assert await delete(store, turns[1]) == 2
    assert await store.read(lambda tx: tx.turns.latest(session.id, 9)) == [turns[0], newer]
    assert await turn_of(store, same_place) == same_place
