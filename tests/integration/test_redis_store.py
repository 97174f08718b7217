"""The store for turns that are not kept, on several instances: for how long, who reads it, and when Redis fails."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from chatassist.adapters.persistence import redis_documents
from chatassist.adapters.persistence.redis import RedisStore
from chatassist.adapters.persistence.redis_documents import reply_key, session_key, turn_key
from chatassist.adapters.redis import RedisLink
from chatassist.adapters.seal import Seal
from chatassist.domain.errors import CommitUnknown, MessageNotFound, SessionNotFound, StoreUnavailable
from chatassist.domain.model import Session
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Transaction, Version
from chatassist.domain.turns import NUMBERS_PER_ATTEMPT, Feedback, Rating, Saved, Status, Turn, Usage
from tests.builders import NOW, a_session, a_turn, a_user, an_end
from tests.fixtures.redis import HASTY, RedisServer
from tests.fixtures.reply_feeds import eventually
from tests.integration.storing import keep

OpenStore = Callable[..., RedisStore]
HALF_AN_HOUR = 30 * 60 * 1000


@pytest.fixture
def open_store(open_link: Callable[..., RedisLink], seal: Seal) -> OpenStore:
    """Open stores, each as an instance of its own, on a server."""

    def opened(server: RedisServer, patience: float = 1.0, idle: timedelta | None = None) -> RedisStore:
        more = {"idle": idle} if idle else {}
        return RedisStore(open_link(server, patience), seal, **more)

    return opened


@pytest.fixture
def store(shared_redis: RedisServer, open_store: OpenStore) -> RedisStore:
    return open_store(shared_redis)


@pytest.fixture
def other(shared_redis: RedisServer, open_store: OpenStore) -> RedisStore:
    """Another instance's."""
    return open_store(shared_redis)


def an_unsaved_turn(key: str | None = "k", text: str = "a question") -> tuple[Session, Turn]:
    session = a_session(a_user(), saved=False, turns=1, origin_id="origin", origin_turns=3)
    turn = a_turn(session, text=text, key=key)
    return session, replace(turn, saved=False, origin_id="origin")


async def found(store: RedisStore, turn: Turn) -> Turn | None:
    return await store.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))


def left(server: RedisServer, key: str) -> int:
    """Milliseconds that a key has still to live; -2 if it is gone, -1 for ever."""
    return int(server.say("PTTL", key)[1:])


# --- Everything that can be done, from two instances ----------------------------------------------------------------


async def test_what_one_instance_stores_another_reads_whole(store: RedisStore, other: RedisStore) -> None:
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    assert await other.read(lambda tx: tx.sessions.get(session.id, session.user_id)) == session
    assert await found(other, turn) == turn
    assert await other.read(lambda tx: tx.turns.find_by_key("k", session.user_id)) == turn
    assert await other.read(lambda tx: tx.turns.last_position(session.id)) == 1


async def test_a_turn_s_life_in_turns_from_both(store: RedisStore, other: RedisStore) -> None:
    session, turn = an_unsaved_turn()
    reply_id = turn.reply.id
    await keep(store, session, turn)
    saved = Saved(reply_id=reply_id, attempt=0, seq=7, content="so far", thinking="hm")
    await other.apply(lambda tx: tx.replies.save([saved]))
    seen = await found(store, turn)
    assert seen is not None
    assert (seen.reply.seq, seen.reply.content, seen.reply.thinking) == (7, "so far", "hm")

    failed = an_end(None, status=Status.FAILED, reason="llm_timeout", seq=8)
    assert await other.apply(lambda tx: tx.replies.finish(reply_id, 0, failed))
    assert not await store.apply(lambda tx: tx.replies.finish(reply_id, 0, failed))
    began = await asyncio.gather(
        *(each.write(lambda tx: tx.replies.restart(reply_id, 0, "instance-2")) for each in (store, other))
    )
    assert sorted(began) == [False, True]
    assert await store.apply(lambda tx: tx.replies.finish(reply_id, 1, an_end("an answer")))
    rated = Feedback(rating=Rating.LIKE, comment="好")
    await other.apply(lambda tx: tx.replies.rate(reply_id, rated))

    second = replace(turn, reply=replace(a_turn(session).reply, version=2, key="k2"))
    await other.write(lambda tx: tx.turns.add_version(second))
    versions = await store.read(lambda tx: tx.turns.versions(session.id, 1))
    assert list(versions) == [
        Version(reply_id=reply_id, number=1, status=Status.COMPLETE),
        Version(reply_id=second.reply.id, number=2, status=Status.RUNNING),
    ]
    seen = await found(store, turn)
    assert seen is not None
    assert (seen.reply.feedback, seen.reply.attempt, seen.reply.content) == (rated, 1, "an answer")
    assert seen.reply.seq == 2 * NUMBERS_PER_ATTEMPT


async def test_a_deleted_turn_keeps_its_keys_from_being_used_again(store: RedisStore, other: RedisStore) -> None:
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    assert await other.write(lambda tx: tx.turns.delete(session.id, 1, NOW)) == 2
    assert await store.write(lambda tx: tx.turns.delete(session.id, 1, NOW)) == 0
    assert await found(store, turn) is None
    for each in (store, other):
        with pytest.raises(MessageNotFound):
            await each.read(lambda tx: tx.turns.find_by_key("k", session.user_id))
        with pytest.raises(Taken):
            await keep(each, a_turn(session, 2, key="k"))
    await store.check()


async def test_a_document_from_before_there_were_choices_still_opens(
    store: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances of both versions run side by side while one follows the other."""

    def of_before(value: Any) -> Any:
        known = asdict(value)
        known.pop("model") if isinstance(value, Session) else known["reply"]["usage"].pop("estimated")
        return known

    session, turn = an_unsaved_turn()
    turn = replace(turn, reply=replace(turn.reply, usage=Usage(input_tokens=1, output_tokens=2)))
    with monkeypatch.context() as patched:
        patched.setattr(redis_documents, "asdict", of_before)
        await keep(store, session, turn)
    assert await other.read(lambda tx: tx.sessions.get(session.id, session.user_id)) == session
    assert await found(other, turn) == turn
    await other.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW, model="chosen"))
    assert (await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))).model == "chosen"


async def test_a_turn_needs_its_session(store: RedisStore) -> None:
    _, turn = an_unsaved_turn()
    with pytest.raises(SessionNotFound):
        await keep(store, turn)


# --- Races ----------------------------------------------------------------------------------------------------------


async def test_of_two_instances_that_use_one_key_one_wins(store: RedisStore, other: RedisStore) -> None:
    for _ in range(20):
        session, turn = an_unsaved_turn()
        rival, late = replace(session, id=a_session(a_user()).id), a_turn(session, key="k")
        late = replace(late, message=replace(late.message, session_id=rival.id))
        results = await asyncio.gather(keep(store, session, turn), keep(other, rival, late), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["NoneType", "Taken"]
        winner = turn if results[0] is None else late
        assert await store.read(lambda tx: tx.turns.find_by_key("k", turn.message.user_id)) == winner  # noqa: B023
        assert await found(store, late if winner is turn else turn) is None, "nothing of the loser is left"


async def test_instances_that_claim_in_one_session_get_different_positions(
    shared_redis: RedisServer, open_store: OpenStore
) -> None:
    stores = [open_store(shared_redis) for _ in range(3)]
    session = a_session(a_user(), saved=False)
    await keep(stores[0], session)

    async def claim(tx: Transaction, turn: Turn) -> int:
        await tx.sessions.touch(session.id, session.user_id, NOW)
        position = (await tx.turns.window(session.id, 5)).accepted
        await tx.turns.add(replace(turn, message=replace(turn.message, position=position)))
        return position

    turns = [a_turn(session) for _ in range(15)]
    claims = [stores[n % 3].write(lambda tx, turn=turn: claim(tx, turn)) for n, turn in enumerate(turns)]  # type: ignore[misc]
    assert sorted(await asyncio.gather(*claims)) == list(range(1, 16))
    stored = await stores[0].read(lambda tx: tx.turns.latest(session.id, 50))
    assert [turn.message.position for turn in stored] == list(range(1, 16))


async def test_a_unit_that_others_always_come_before_gives_up(store: RedisStore, other: RedisStore) -> None:
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)

    async def slow(tx: Transaction) -> None:
        await tx.sessions.touch(session.id, session.user_id, NOW)
        await other.apply(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW))

    with pytest.raises(StoreUnavailable, match="again and again"):
        await store.write(slow)


# --- For how long ---------------------------------------------------------------------------------------------------


async def test_everything_lives_for_half_an_hour_after_the_last_turn(
    redis_server: RedisServer, open_store: OpenStore
) -> None:
    store = open_store(redis_server)
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    keys = [session_key(session.id), reply_key(turn.reply.id), turn_key(session.user_id, "k")]

    def age(milliseconds: int) -> None:
        for key in keys:
            redis_server.say("PEXPIRE", key, str(milliseconds))

    def young() -> list[bool]:
        return [HALF_AN_HOUR - 60_000 < left(redis_server, key) <= HALF_AN_HOUR for key in keys]

    assert young() == [True] * 3
    later = NOW + timedelta(minutes=1)
    for change, renews in (
        (lambda tx: tx.replies.save([Saved(reply_id=turn.reply.id, attempt=0, seq=1, content="so far")]), False),
        (lambda tx: tx.replies.rate(turn.reply.id, Feedback(rating=Rating.LIKE)), False),
        (lambda tx: tx.sessions.hold(session.id, session.user_id), False),
        (lambda tx: tx.replies.finish(turn.reply.id, 0, an_end()), True),
        (lambda tx: tx.sessions.touch(session.id, session.user_id, later), True),
        (lambda tx: tx.turns.delete(session.id, 1, NOW), False),
    ):
        age(100_000)
        await store.apply(change)
        assert young() == [renews] * 3
    assert left(redis_server, keys[1]) == -2, "the deleted reply leads nowhere"


async def test_what_was_idle_is_gone_and_its_key_is_free(shared_redis: RedisServer, open_store: OpenStore) -> None:
    store = open_store(shared_redis, idle=timedelta(milliseconds=40))
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    await eventually(lambda: left(shared_redis, turn_key(session.user_id, "k")) == -2)
    assert await found(store, turn) is None
    assert await store.read(lambda tx: tx.turns.find_by_key("k", session.user_id)) is None
    with pytest.raises(SessionNotFound):
        await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))
    await keep(store, session, turn)


async def test_an_index_that_outlived_its_session_keeps_no_key(store: RedisStore, shared_redis: RedisServer) -> None:
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    shared_redis.say("DEL", session_key(session.id))
    assert await store.read(lambda tx: tx.turns.find_by_key("k", session.user_id)) is None
    again = replace(session, id=a_session(a_user()).id)
    await keep(store, again, replace(turn, message=replace(turn.message, session_id=again.id)))


async def test_nothing_that_was_said_can_be_read_in_what_redis_writes_down(
    start_redis: Callable[..., RedisServer], open_store: OpenStore
) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    store = open_store(server)
    phrase, key = "一句只有用户知道的话 and-a-private-phrase", "a-key-of-the-clients-own"
    session, turn = an_unsaved_turn(key, phrase)
    await keep(store, session, turn)
    await store.apply(lambda tx: tx.replies.finish(turn.reply.id, 0, an_end(phrase[::-1])))
    assert server.say("SAVE").startswith(b"+OK")
    written = b"".join(file.read_bytes() for file in server.files())
    assert session.id.encode() in written
    for private in (phrase, phrase[:6], phrase[-12:], phrase[::-1][:12], key):
        for form in (private.encode(), private.encode("unicode_escape")):
            assert form not in written


async def test_who_has_another_secret_holds_nothing(
    store: RedisStore, shared_redis: RedisServer, open_link: Callable[..., RedisLink]
) -> None:
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    stranger = RedisStore(open_link(shared_redis), Seal(["w8Rr2TnQ5mKx7LpZ3vBc9YdHj4FsGe6A"]))
    assert await found(stranger, turn) is None


# --- Redis fails ----------------------------------------------------------------------------------------------------


async def test_a_redis_that_is_away_or_frozen_is_told_in_bounded_time(
    redis_server: RedisServer, open_store: OpenStore
) -> None:
    store = open_store(redis_server, HASTY)
    session, turn = an_unsaved_turn()
    await keep(store, session, turn)
    for break_it in (redis_server.pause, redis_server.stop):
        break_it()
        began = time.monotonic()
        for attempt in (found(store, turn), keep(store, a_turn(session, 2)), store.check()):
            with pytest.raises(StoreUnavailable):
                await attempt
        assert time.monotonic() - began < 4 * HASTY
        redis_server.resume()
        if break_it == redis_server.pause:
            await eventually(lambda: store._link.up)
            assert await found(store, turn) == turn
    redis_server.start()
    await eventually(lambda: store._link.up)
    assert await found(store, turn) is None, "it came back empty"


async def test_a_commit_that_is_not_answered_may_have_happened_and_cannot_happen_later(
    redis_server: RedisServer, open_store: OpenStore
) -> None:
    store = open_store(redis_server, HASTY)
    session, turn = an_unsaved_turn()
    await keep(store, session)

    async def work(tx: Transaction) -> None:
        await tx.turns.add(turn)
        redis_server.pause()

    with pytest.raises(CommitUnknown):
        await store.write(work)
    redis_server.resume()
    await eventually(lambda: store._link.up)
    settled = await store.write(lambda tx: tx.turns.find_settled(turn.reply.id, session.user_id))
    assert await found(store, turn) == settled


async def test_a_commit_that_is_still_on_its_way_is_fenced_off(store: RedisStore, other: RedisStore) -> None:
    session, turn = an_unsaved_turn()
    await keep(store, session)
    runs = 0

    async def slow(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            raise ZeroDivisionError  # nobody repeats what was given up
        await tx.turns.add(turn)
        assert await other.write(lambda tx: tx.turns.find_settled(turn.reply.id, session.user_id)) is None

    with pytest.raises(ZeroDivisionError):
        await store.write(slow)
    assert await found(store, turn) is None
    await keep(other, turn)
    assert await found(store, turn) == turn


async def test_a_cancelled_caller_cuts_no_unit_in_half(store: RedisStore) -> None:
    turns = [an_unsaved_turn() for _ in range(60)]
    tasks = [asyncio.create_task(keep(store, *each)) for each in turns]
    for number, task in enumerate(tasks):
        if number % 2:
            await asyncio.sleep(0)
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await store.aclose()
    kept = [await found(store, turn) is not None for _, turn in turns]
    assert all(kept[number] for number, result in enumerate(results) if result is None)
    assert any(kept[number] for number, result in enumerate(results) if result is not None), "it went on"
