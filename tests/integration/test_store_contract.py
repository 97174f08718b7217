"""What every store promises, whatever it is made of: one suite over memory, SQLite and both MySQL drivers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import FinishReason, Preferences, Session, Status, Turn, Usage, User
from chatassist.domain.ports.persistence import Taken, Transaction
from tests.builders import NOW, a_login, a_session, a_turn, a_user, an_end, new_id
from tests.fixtures.databases import AnyStore

SECOND = timedelta(seconds=1)


async def keep(store: AnyStore, *values: User | Session | Turn) -> None:
    async def work(tx: Transaction) -> None:
        for value in values:
            if isinstance(value, User):
                await tx.users.add(value)
            elif isinstance(value, Session):
                await tx.sessions.add(value)
            else:
                await tx.turns.add(value)

    await store.write(work)


async def a_kept_session(store: AnyStore) -> Session:
    await keep(store, user := a_user(), session := a_session(user))
    return session


async def turn_of(store: AnyStore, turn: Turn) -> Turn | None:
    return await store.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))


async def finish(store: AnyStore, turn: Turn, attempt: int = 0, content: str | None = "an answer") -> bool:
    return await store.write(lambda tx: tx.replies.finish(turn.reply.id, attempt, an_end(content)))


# --- Units of work --------------------------------------------------------------------------------------------------


async def test_a_unit_that_raises_leaves_nothing_and_its_error_reaches_the_caller(store: AnyStore) -> None:
    user = a_user()

    async def work(tx: Transaction) -> None:
        await tx.users.add(user)
        assert await tx.users.get(user.id) == user  # a unit sees what it wrote
        raise SessionNotFound

    with pytest.raises(SessionNotFound):
        await store.write(work)
    assert await store.read(lambda tx: tx.users.get(user.id)) is None


async def test_a_unit_may_go_on_after_a_value_was_taken(store: AnyStore) -> None:
    await keep(store, first := a_user())

    async def work(tx: Transaction) -> User | None:
        with pytest.raises(Taken):
            await tx.users.add(a_user(openid=first.openid))
        return await tx.users.find(first.openid)

    assert await store.write(work) == first


async def test_a_cancelled_caller_leaves_its_unit_whole_or_absent_and_the_store_usable(store: AnyStore) -> None:
    dice = random.Random(7)  # noqa: S311 - no secret
    pairs = [(user := a_user(), a_session(user)) for _ in range(120)]

    async def send(user: User, session: Session) -> None:
        await keep(store, user, session)

    tasks = [asyncio.create_task(send(*pair)) for pair in pairs]
    for task in dice.sample(tasks, k=len(tasks)):
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await store.aclose()  # lets the cancelled callers' units end

    async def kept(tx: Transaction, user: User, session: Session) -> int:
        found = await tx.users.get(user.id)
        try:
            return (found is not None) + (await tx.sessions.get(session.id, user.id) == session)
        except SessionNotFound:
            return int(found is not None)

    halves = [await store.read(lambda tx, pair=pair: kept(tx, *pair)) for pair in pairs]  # type: ignore[misc]
    assert set(halves) <= {0, 2}
    assert all(half == 2 for half, result in zip(halves, results, strict=True) if result is None)
    assert any(half == 2 for half, result in zip(halves, results, strict=True) if result is not None)
    await keep(store, a_user())


async def test_twenty_claims_in_one_session_get_the_positions_one_to_twenty(store: AnyStore) -> None:
    session = await a_kept_session(store)

    async def claim(tx: Transaction, turn: Turn) -> int:
        await tx.sessions.touch(session.id, session.user_id, NOW)
        position = (await tx.turns.window(session.id, 5)).accepted
        await tx.turns.add(replace(turn, message=replace(turn.message, position=position)))
        return position

    turns = [a_turn(session) for _ in range(20)]
    claims = [store.write(lambda tx, turn=turn: claim(tx, turn)) for turn in turns]  # type: ignore[misc]
    assert sorted(await asyncio.gather(*claims)) == list(range(1, 21))
    stored = await store.read(lambda tx: tx.turns.latest(session.id, 50))
    assert [turn.message.position for turn in stored] == list(range(1, 21))


async def test_twenty_first_logins_of_one_openid_make_one_user(store: AnyStore) -> None:
    async def log_in(user: User) -> User | None:
        async def work(tx: Transaction) -> User:
            if known := await tx.users.find(user.openid):
                return known
            await tx.users.add(user)
            return user

        try:
            return await store.write(work)
        except Taken:
            return await store.read(lambda tx: tx.users.find(user.openid))

    found = await asyncio.gather(*(log_in(a_user(openid="one")) for _ in range(20)))
    assert len({user.id for user in found if user}) == 1
    assert None not in found


async def test_of_twenty_turns_under_one_key_one_is_stored_and_the_others_learn_it(store: AnyStore) -> None:
    session = await a_kept_session(store)
    turns = [a_turn(session, position, key="k-1") for position in range(1, 21)]
    results = await asyncio.gather(*(keep(store, turn) for turn in turns), return_exceptions=True)
    won = [turn for turn, result in zip(turns, results, strict=True) if result is None]
    assert [type(result) for result in results if result is not None] == [Taken] * 19
    assert await store.read(lambda tx: tx.turns.find_by_key("k-1", session.user_id)) == won[0]
    assert await store.read(lambda tx: tx.turns.latest(session.id, 50)) == won


# --- People ---------------------------------------------------------------------------------------------------------


async def test_a_user_is_found_by_openid_and_id_and_every_change_of_it_is_kept(store: AnyStore) -> None:
    await keep(
        store, user := a_user(nickname="小明👨‍👩‍👧", avatar="https://a/1", preferences=Preferences(auto_read=True))
    )
    assert await store.read(lambda tx: tx.users.find(user.openid)) == user
    changed = replace(user, nickname="", preferences=Preferences(is_dark_mode=True, save_history=False), blocked=True)
    for _ in range(2):  # the second time nothing changes
        await store.write(lambda tx: tx.users.save(changed))
    assert await store.read(lambda tx: tx.users.get(user.id)) == changed
    assert await store.read(lambda tx: tx.users.get(new_id())) is None


async def test_openids_that_differ_in_case_are_two_people(store: AnyStore) -> None:
    await keep(store, small := a_user(openid="oabc"), large := a_user(openid="oABC"))
    assert await store.read(lambda tx: tx.users.find("oabc")) == small
    assert await store.read(lambda tx: tx.users.find("oABC")) == large
    assert await store.read(lambda tx: tx.users.find("Oabc")) is None


async def test_saving_never_moves_a_user_to_another_openid(store: AnyStore) -> None:
    await keep(store, user := a_user())
    await store.write(lambda tx: tx.users.save(replace(user, openid="another", nickname="n")))
    assert await store.read(lambda tx: tx.users.get(user.id)) == replace(user, nickname="n")


async def test_a_login_comes_with_its_user_until_it_is_ended(store: AnyStore) -> None:
    await keep(store, user := a_user(), other := a_user())
    phone, tablet, foreign = a_login(user), a_login(user), a_login(other)
    for login in (phone, tablet, foreign):
        await store.write(lambda tx, login=login: tx.logins.add(login))  # type: ignore[misc]
    assert await store.read(lambda tx: tx.logins.find(phone.id)) == (phone, user)
    for _ in range(2):
        await store.write(lambda tx: tx.logins.end(phone.id))
    assert await store.read(lambda tx: tx.logins.find(phone.id)) is None
    assert await store.read(lambda tx: tx.logins.find(tablet.id)) == (tablet, user)
    await store.write(lambda tx: tx.logins.end_all(user.id))
    assert await store.read(lambda tx: tx.logins.find(tablet.id)) is None
    assert await store.read(lambda tx: tx.logins.find(foreign.id)) == (foreign, other)


async def test_a_purge_drops_expired_logins_alone_a_thousand_at_a_time(store: AnyStore) -> None:
    await keep(store, user := a_user())
    lasting = a_login(user, expires_at=NOW)

    async def fill(tx: Transaction) -> None:
        await tx.logins.add(lasting)
        for _ in range(1001):
            await tx.logins.add(a_login(user, expires_at=NOW - timedelta(microseconds=1)))

    await store.write(fill)
    assert [await store.write(lambda tx: tx.logins.purge(NOW)) for _ in range(3)] == [1000, 1, 0]
    assert await store.read(lambda tx: tx.logins.find(lasting.id)) == (lasting, user)


# --- Conversations --------------------------------------------------------------------------------------------------


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


async def test_a_turn_is_found_by_its_owner_alone_and_never_by_its_question(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await keep(store, turn := a_turn(session, key="k"))
    assert await store.read(lambda tx: tx.turns.find(turn.reply.id, new_id())) is None
    assert await store.read(lambda tx: tx.turns.find(turn.message.id, session.user_id)) is None
    assert await store.read(lambda tx: tx.turns.find_by_key("k", new_id())) is None
    assert await store.read(lambda tx: tx.turns.find_by_key("K", session.user_id)) is None


async def test_a_key_is_free_for_every_user_and_turns_without_one_never_collide(store: AnyStore) -> None:
    for session in (await a_kept_session(store), await a_kept_session(store)):
        await keep(store, a_turn(session, 1, key="same"), a_turn(session, 2), a_turn(session, 3))


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


async def test_the_window_of_a_silent_session_counts_and_that_of_none_is_empty(store: AnyStore) -> None:
    session = await a_kept_session(store)
    await store.write(lambda tx: tx.sessions.touch(session.id, session.user_id, NOW))
    await keep(store, a_turn(session))
    window = await store.read(lambda tx: tx.turns.window(session.id, 3))
    assert (window.accepted, list(window.turns)) == (1, [])
    window = await store.read(lambda tx: tx.turns.window(new_id(), 3))
    assert (window.accepted, list(window.turns)) == (0, [])


# --- Ends -----------------------------------------------------------------------------------------------------------


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


async def test_a_store_with_its_schema_passes_the_check(store: AnyStore) -> None:
    await store.check()


async def test_closing_waits_for_the_units_that_nobody_waits_for(store: AnyStore) -> None:
    user, entered, go_on = a_user(), asyncio.Event(), asyncio.Event()

    async def work(tx: Transaction) -> None:
        await tx.users.add(user)
        entered.set()
        await go_on.wait()

    caller = asyncio.create_task(_run(store.write, work))
    await entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    closing = asyncio.create_task(_run(store.aclose))
    await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    assert await store.read(lambda tx: tx.users.get(user.id)) == user


async def _run(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    await function(*arguments)
