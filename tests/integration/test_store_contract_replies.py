"""What every store promises about running replies: saved, ended, begun again and rated, each fenced; and instances."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chatassist.domain.errors import LlmUnavailable
from chatassist.domain.turns import End, Feedback, FinishReason, Rating, Saved, Status, Turn, Usage
from tests.builders import NOW, a_save, a_session, a_turn, a_user, a_version, an_end, new_id
from tests.fixtures.databases import AnyStore, in_redis_too
from tests.integration.storing import a_kept_session, keep, keep_versions, turn_of

SECOND = timedelta(seconds=1)
NASTY = "两 😀👨‍👩‍👧 'q' \"d\" \\ \\' %s %(id0)s :id0 :content1 ? ; -- \t\n $1 {x} \u2028 e\u0301"


async def finish(store: AnyStore, turn: Turn, attempt: int = 0, content: str | None = "an answer") -> bool:
    return await store.write(lambda tx: tx.replies.finish(turn.reply.id, attempt, an_end(content)))


async def save(store: AnyStore, *texts: Saved) -> None:
    await store.apply(lambda tx: tx.replies.save(texts))


async def restart(store: AnyStore, turn: Turn, attempt: int = 0, instance_id: str = "instance-2") -> bool:
    return await store.write(lambda tx: tx.replies.restart(turn.reply.id, attempt, instance_id))


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


@pytest.mark.parametrize(
    ("given", "stored"),
    [({"seq": 7}, 7), ({"seq": None}, 3_000_000), ({"seq": 2_000_004, "thinking": NASTY}, 2_000_004)],
)
@in_redis_too
async def test_an_end_is_stored_with_its_number_and_what_was_thought(
    store: AnyStore, given: dict[str, Any], stored: int
) -> None:
    """Who does not know how far the reply came takes the last number that the attempt can have."""
    turn = a_turn(await a_kept_session(store), attempt=2, seq=2_000_001, thinking="before")
    await keep(store, turn)
    end = an_end("said", **given)
    assert await store.write(lambda tx: tx.replies.finish(turn.reply.id, 2, end))
    seen = await turn_of(store, turn)
    assert seen == replace(turn, reply=turn.reply.ended(end))
    assert (seen.reply.seq, seen.reply.thinking) == (stored, given.get("thinking", ""))
    assert seen.reply.end == replace(end, seq=stored)


@in_redis_too
async def test_an_end_without_texts_keeps_what_is_stored_of_both(store: AnyStore) -> None:
    turn = a_turn(await a_kept_session(store), content="said", thinking="thought", seq=5)
    await keep(store, turn)
    end = End.stop(NOW)
    assert await store.write(lambda tx: tx.replies.finish(turn.reply.id, 0, end))
    seen = await turn_of(store, turn)
    assert seen == replace(turn, reply=turn.reply.ended(end))
    assert (seen.reply.content, seen.reply.thinking, seen.reply.seq) == ("said", "thought", 1_000_000)


# --- Saving ---------------------------------------------------------------------------------------------------------


@in_redis_too
async def test_texts_that_grew_are_saved_with_the_number_they_reach(store: AnyStore) -> None:
    session = await a_kept_session(store)
    turns = [a_turn(session, position, instance_id="one", attempt=position % 2) for position in range(1, 121)]
    await keep(store, *turns)
    texts = [
        a_save(turn, 1000 + number, f"{number} {NASTY}", thinking="" if number % 3 else f"thought {number} {NASTY}")
        for number, turn in enumerate(turns)
    ]
    await save(store, *texts[1:])  # more than go into one statement
    seen = await store.read(lambda tx: tx.turns.latest(session.id, 200))
    assert seen[0] == turns[0], "what was not saved is as it was"
    expected = [(text.seq, text.content, text.thinking) for text in texts[1:]]
    assert [(turn.reply.seq, turn.reply.content, turn.reply.thinking) for turn in seen[1:]] == expected
    assert {turn.reply.status for turn in seen} == {Status.RUNNING}
    await save(store, a_save(turns[5], 2000, "less", thinking=""))
    again = await turn_of(store, turns[5])
    assert again is not None
    assert (again.reply.seq, again.reply.content, again.reply.thinking) == (2000, "less", "")


@in_redis_too
async def test_saving_nothing_changes_nothing(store: AnyStore) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store)))
    await save(store)
    assert await turn_of(store, turn) == turn


@in_redis_too
async def test_the_largest_texts_are_saved_in_one_go(store: AnyStore) -> None:
    """Fifty replies that grew to their limits at the same time: 25 MB, where MariaDB takes packets of 16 MiB."""
    session = await a_kept_session(store)
    turns = [a_turn(session, position) for position in range(1, 51)]
    await keep(store, *turns)
    await save(store, *(a_save(turn, 1, "😀" * 64_000, thinking="👍" * 64_000) for turn in turns))
    kept = await store.read(lambda tx: tx.turns.latest(session.id, 51))
    texts = {(turn.reply.content, turn.reply.thinking) for turn in kept}
    assert len(kept) == 50
    assert texts == {("😀" * 64_000, "👍" * 64_000)}


@in_redis_too
async def test_a_save_of_another_attempt_or_of_what_has_ended_changes_nothing(store: AnyStore) -> None:
    session = await a_kept_session(store)
    runs, complete, failed, stopped = (
        a_turn(session, position, attempt=1, status=status, content="kept", thinking="kept", seq=7)
        for position, status in enumerate((Status.RUNNING, Status.COMPLETE, Status.FAILED, Status.STOPPED), 1)
    )
    await keep(store, runs, complete, failed, stopped)
    stale = [replace(a_save(runs, 9, "stale"), attempt=attempt) for attempt in (0, 2)]
    for text in stale:
        await save(store, text, *(a_save(turn, 9, "too late", thinking="x") for turn in (complete, failed, stopped)))
    await save(store, replace(a_save(runs), reply_id=new_id()))
    assert await store.read(lambda tx: tx.turns.latest(session.id, 9)) == [runs, complete, failed, stopped]


@in_redis_too
async def test_in_one_save_each_text_meets_its_own_attempt(store: AnyStore) -> None:
    """The numbers of attempts are told per text: one that is right must not let another one pass."""
    session = await a_kept_session(store)
    first, second = a_turn(session, 1, attempt=0), a_turn(session, 2, attempt=1)
    await keep(store, first, second)
    await save(store, replace(a_save(first, content="stale"), attempt=1), replace(a_save(second), attempt=0))
    assert await store.read(lambda tx: tx.turns.latest(session.id, 9)) == [first, second]


# --- Beginning again ------------------------------------------------------------------------------------------------


async def test_a_failed_reply_begins_again_with_nothing_said_and_its_feedback(store: AnyStore) -> None:
    session = await a_kept_session(store)
    turn = a_turn(session, key="k", requested_model="m", content="so far", thinking="hm", seq=4)
    await keep(store, turn)
    end = replace(End.failure(LlmUnavailable(), NOW), model="v", usage=Usage(input_tokens=1, output_tokens=2))
    await store.write(lambda tx: tx.replies.finish(turn.reply.id, 0, end))
    feedback = Feedback(rating=Rating.DISLIKE, comment=NASTY)
    await store.write(lambda tx: tx.replies.rate(turn.reply.id, feedback))
    failed = await turn_of(store, turn)
    assert failed is not None

    assert await restart(store, turn)
    seen = await turn_of(store, turn)
    assert seen == replace(failed, reply=failed.reply.restarted("instance-2"))
    assert (seen.reply.attempt, seen.reply.seq, seen.reply.status) == (1, 1_000_000, Status.RUNNING)
    assert (seen.reply.content, seen.reply.thinking, seen.reply.reason, seen.reply.end) == ("", "", None, None)
    assert seen.reply.feedback == feedback
    assert list(await store.read(lambda tx: tx.replies.running("instance-2"))) == [turn.reply.id]
    assert not await finish(store, turn, attempt=0), "the old attempt is over"
    assert await finish(store, turn, attempt=1)


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPLETE, Status.STOPPED])
@in_redis_too
async def test_only_a_failed_reply_begins_again(store: AnyStore, status: Status) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store), status=status))
    assert not await restart(store, turn)
    assert not await restart(store, replace(turn, reply=replace(turn.reply, id=new_id())))
    assert await turn_of(store, turn) == turn


@in_redis_too
async def test_an_attempt_that_is_not_the_last_does_not_begin_again(store: AnyStore) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store), status=Status.FAILED, attempt=1))
    assert [await restart(store, turn, attempt) for attempt in (0, 2, 1)] == [False, False, True]


@in_redis_too
async def test_of_twenty_that_begin_an_attempt_one_wins(store: AnyStore) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store), status=Status.FAILED))
    results = await asyncio.gather(*(restart(store, turn, instance_id=f"i-{number}") for number in range(20)))
    assert sum(results) == 1
    seen = await turn_of(store, turn)
    assert seen is not None
    assert (seen.reply.attempt, seen.reply.instance_id) == (1, f"i-{results.index(True)}")


# --- What runs, what is thought of it --------------------------------------------------------------------------------


async def test_what_runs_is_told_by_instance(store: AnyStore) -> None:
    session = await a_kept_session(store)
    first, second, foreign, over = (
        a_turn(session, position, instance_id=name, status=status)
        for position, (name, status) in enumerate(
            (("one", Status.RUNNING), ("one", Status.RUNNING), ("two", Status.RUNNING), ("one", Status.FAILED)), 1
        )
    )
    await keep(store, first, second, foreign, over)
    await keep_versions(store, newer := a_version(over, 2, instance_id="one"))
    mine = await store.read(lambda tx: tx.replies.running("one"))
    assert sorted(mine) == sorted(turn.reply.id for turn in (first, second, newer))
    assert list(await store.read(lambda tx: tx.replies.running("nobody"))) == []


@in_redis_too
async def test_a_rating_is_kept_replaced_and_taken_back_whatever_becomes_of_the_reply(store: AnyStore) -> None:
    await keep(store, turn := a_turn(await a_kept_session(store)))
    await keep_versions(store, other := a_version(turn, 2))
    like = Feedback(rating=Rating.LIKE, comment=NASTY)
    for feedback in (like, like, Feedback(rating=Rating.DISLIKE), None, None, like):
        await store.write(lambda tx, one=feedback: tx.replies.rate(turn.reply.id, one))  # type: ignore[misc]
        assert await turn_of(store, turn) == replace(turn, reply=replace(turn.reply, feedback=feedback))
    await finish(store, turn)
    ended = await turn_of(store, turn)
    assert ended is not None
    assert ended.reply.feedback == like
    await store.write(lambda tx: tx.replies.rate(new_id(), like))  # nobody's
    assert await turn_of(store, other) == other


# --- Orphans and instances --------------------------------------------------------------------------------------------


async def test_orphans_are_ended_with_their_texts_and_what_lives_or_has_ended_is_left(store: AnyStore) -> None:
    session = await a_kept_session(store)
    ours, expired, unknown = (
        a_turn(session, position, instance_id=name, content="so far", thinking="hm", seq=3, attempt=position - 1)
        for position, name in enumerate(("alive", "expired", "unknown"), 1)
    )
    over = a_turn(session, 4, instance_id="unknown", status=Status.COMPLETE)
    await keep(store, ours, expired, unknown, over)
    await store.write(lambda tx: tx.instances.renew("alive", NOW + timedelta(microseconds=1)))
    await store.write(lambda tx: tx.instances.renew("expired", NOW))
    end = an_end("x", seq=9, status=Status.FAILED, finish_reason=FinishReason.ERROR, reason="reply_interrupted")
    assert [await store.write(lambda tx: tx.replies.finish_orphans(NOW, end)) for _ in range(2)] == [2, 0]
    as_stored = replace(end, content=None, seq=None)
    expected = [ours, *(replace(turn, reply=turn.reply.ended(as_stored)) for turn in (expired, unknown)), over]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 9)) == expected
    assert [turn.reply.seq for turn in expected] == [3, 2_000_000, 3_000_000, 0]
    assert {turn.reply.content for turn in expected[:3]} == {"so far"}


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
