"""What every store promises to who looks through it: lists of sessions, their names, pages of history."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.history import Cut, Entry, Leaf, Place, Stretch
from chatassist.domain.model import Session, TitleSource, User
from chatassist.domain.ports.archive import FIRST_OF_ALL, Mark
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.turns import Turn
from tests.builders import NOW, a_session, a_turn, a_user, a_version, new_id
from tests.fixtures.databases import AnyStore, in_redis_too
from tests.integration.storing import a_kept_session, keep, keep_versions
from tests.integration.test_store_contract_versions import BLOCKED, FAILED, GOOD, RUNNING, SILENT

# --- Lists of sessions ----------------------------------------------------------------------------------------------


async def listed(
    store: AnyStore, user: User, mark: Mark = FIRST_OF_ALL, limit: int = 100, keyword: str = ""
) -> Sequence[Session]:
    return await store.read(lambda tx: tx.archive.sessions(user.id, mark, limit, keyword=keyword))


def at(user: User, seconds: float, **given: object) -> Session:
    return a_session(user, updated_at=NOW + timedelta(seconds=seconds), spoken=True, **given)


async def test_a_list_has_pinned_sessions_first_and_then_the_youngest(store: AnyStore) -> None:
    user, other = a_user(), a_user()
    twins = sorted((at(user, 5), at(user, 5)), key=lambda one: one.id, reverse=True)
    expected = [at(user, 2, pinned=True), at(user, 1, pinned=True), at(user, 5.000001), *twins, at(user, 0)]
    unlisted = [
        a_session(user, updated_at=NOW),
        at(user, 9, deletion_id=new_id()),
        a_session(user, pinned=True),
        at(other, 3),
    ]
    await keep(store, user, other, *reversed(expected), *unlisted)
    assert list(await listed(store, user)) == expected
    for cut in range(1, len(expected) + 1):
        assert list(await listed(store, user, limit=cut)) == expected[:cut]
        behind = Mark.behind(expected[cut - 1])
        assert list(await listed(store, user, behind)) == expected[cut:]
        assert list(await listed(store, user, behind, limit=1)) == expected[cut : cut + 1]
    assert len(await listed(store, other, Mark.behind(expected[0]))) == 1, "a place in a list shows nobody else's"


async def test_a_session_is_listed_while_its_first_reply_runs(store: AnyStore) -> None:
    user = a_user()
    await keep(store, user, session := a_session(user, running=1))
    assert list(await listed(store, user)) == [session]


@pytest.mark.parametrize(
    ("keyword", "found"),
    [
        ("天", ["今天天气"]),
        ("a", ["a_b", "a%b", 'say "x"', "back\\slash"]),
        ("A", ["AB"]),
        ("%", ["a%b"]),
        ("_", ["a_b"]),
        ("b%", []),
        ("'", ["it's"]),
        ('"', ['say "x"']),
        ("\\", ["back\\slash"]),
        ("😀", ["smile 😀"]),
        ("😁", []),
        ("é", []),
        ("e\u0301", ["e\u0301"]),
        (" ", ["smile 😀", 'say "x"', " "]),
        ("x" * 50, []),
        ("ß", ["ß"]),
        ("ss", []),
    ],
)
async def test_a_keyword_is_a_plain_part_of_the_title(store: AnyStore, keyword: str, found: list[str]) -> None:
    titles = ("今天天气", "a_b", "a%b", "AB", "it's", 'say "x"', "back\\slash", "smile 😀", "e\u0301", " ", "ß", "")
    user = a_user()
    await keep(store, user, *(at(user, 1, title=title) for title in titles), at(a_user(), 1, title=keyword))
    assert {one.title for one in await listed(store, user, keyword=keyword)} == set(found)


async def test_a_list_by_keyword_goes_on_where_it_ended(store: AnyStore) -> None:
    user = a_user()
    titles = ["yes", "no"] * 6
    sessions = [at(user, n, title=title, pinned=n > 8) for n, title in enumerate(titles)]
    await keep(store, user, *sessions)
    seen: list[Session] = []
    mark = FIRST_OF_ALL
    while page := await listed(store, user, mark, 2, "yes"):
        seen += page
        mark = Mark.behind(page[-1])
    assert seen == [one for one in reversed(sessions) if one.title == "yes"]


@pytest.mark.parametrize("seed", range(3))
async def test_a_session_that_does_not_move_is_neither_skipped_nor_repeated(store: AnyStore, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    user = a_user()
    sessions = [at(user, chance.randrange(4), pinned=chance.random() < 0.3) for _ in range(25)]
    await keep(store, user, *sessions)
    restless = set(chance.sample([one.id for one in sessions], 8))
    moved_at = iter(range(10, 1000))

    async def disturb() -> None:
        moving = chance.choice(sorted(restless))
        when = NOW + timedelta(seconds=next(moved_at))
        if chance.random() < 0.5:
            await store.write(lambda tx: tx.sessions.touch(moving, user.id, when))
        else:
            await store.write(lambda tx: tx.sessions.edit(moving, user.id, pinned=chance.random() < 0.5))
        if chance.random() < 0.5:
            await keep(store, at(user, next(moved_at)))

    seen: list[str] = []
    mark = FIRST_OF_ALL
    while page := await listed(store, user, mark, chance.randint(1, 4)):
        seen += [one.id for one in page]
        mark = Mark.behind(page[-1])
        await disturb()
    order = sorted(sessions, key=lambda one: (one.pinned, one.updated_at, one.id), reverse=True)
    assert [one for one in seen if one in {s.id for s in sessions} - restless] == [
        one.id for one in order if one.id not in restless
    ]


# --- Names and pins -------------------------------------------------------------------------------------------------


@in_redis_too
async def test_what_a_user_calls_a_session_stays_and_so_does_his_pin(store: AnyStore) -> None:
    session = await a_kept_session(store)

    async def edited(**given: str | bool) -> Session:
        await store.write(lambda tx: tx.sessions.edit(session.id, session.user_id, **given))  # type: ignore[arg-type]
        return await store.read(lambda tx: tx.sessions.get(session.id, session.user_id))

    pinned = await edited(pinned=True)
    assert pinned == replace(session, pinned=True, revision=1)
    assert await store.write(lambda tx: tx.sessions.entitle(session.id, "a model's"))
    named = await edited(title="😀 '%_\\")
    assert named == replace(pinned, title="😀 '%_\\", title_source=TitleSource.USER, revision=3)
    assert not await store.write(lambda tx: tx.sessions.entitle(session.id, "a model's"))
    assert await edited(pinned=False) == replace(named, pinned=False, revision=4)
    assert await edited(title="again", pinned=True) == replace(named, title="again", revision=5)
    for session_id, user_id in ((session.id, new_id()), (new_id(), session.user_id)):
        with pytest.raises(SessionNotFound):
            await store.write(lambda tx, s=session_id, u=user_id: tx.sessions.edit(s, u, title="x"))  # type: ignore[misc]


async def test_a_new_name_raises_the_users_revision_and_a_deleted_session_has_none(store: AnyStore) -> None:
    await keep(store, user := a_user(), session := a_session(user), gone := a_session(user, deletion_id=new_id()))
    await store.write(lambda tx: tx.sessions.edit(session.id, user.id, title="x"))
    known = await store.read(lambda tx: tx.users.find_by_id(user.id))
    assert known == replace(user, revision=1)
    with pytest.raises(SessionNotFound):
        await store.write(lambda tx: tx.sessions.edit(gone.id, user.id, title="x"))


# --- Pages of history -----------------------------------------------------------------------------------------------


async def turns_in(store: AnyStore, session: Session, stretch: Stretch) -> list[Turn]:
    return list(await store.read(lambda tx: tx.archive.turns(session.id, stretch)))


async def test_turns_are_read_both_ways_in_the_version_they_show(store: AnyStore) -> None:
    session, other = await a_kept_session(store), await a_kept_session(store)
    turns = [
        a_turn(session, position, f"asked {position}", **state)
        for position, state in ((1, GOOD), (2, FAILED), (4, BLOCKED), (5, SILENT), (9, RUNNING))
    ]
    better, worse = a_version(turns[1], 2, **GOOD), a_version(turns[2], 2, **FAILED)
    await keep(store, *turns, a_turn(other, 4, **GOOD))
    await keep_versions(store, better, worse)
    shown = [turns[0], better, *turns[2:]]
    for limit in (1, 2, 9):
        for position in (0, 1, 3, 4, 9, 10):
            older = Stretch(limit=limit, position=position)
            newer = Stretch(limit=limit, position=position, older=False)
            assert (
                await turns_in(store, session, older) == [t for t in shown if t.message.position <= position][-limit:]
            )
            assert await turns_in(store, session, newer) == [t for t in shown if t.message.position >= position][:limit]
        assert await turns_in(store, session, Stretch(limit=limit)) == shown[-limit:]
    versions = await store.read(lambda tx: tx.archive.versions(session.id, 2, 5))
    assert {at: list(ids) for at, ids in versions.items()} == {
        2: [turns[1].reply.id, better.reply.id],
        4: [turns[2].reply.id, worse.reply.id],
        5: [turns[3].reply.id],
    }


async def test_a_message_has_its_place_in_its_own_session_alone(store: AnyStore) -> None:
    session, other = await a_kept_session(store), await a_kept_session(store)
    first, gone = a_turn(session, 1, key="k-1", **GOOD), a_turn(session, 2, key="k-2", **GOOD)
    await keep(store, first, gone, a_turn(other, 1))
    await keep_versions(store, second := a_version(first, 2))
    await store.write(lambda tx: tx.turns.delete(session.id, 2, NOW))

    async def place(session: Session, message_id: str) -> Place | None:
        return await store.read(lambda tx: tx.archive.place(session.id, message_id))

    assert await place(session, first.message.id) == Place(position=1, is_reply=False)
    for version in (first, second):
        assert await place(session, version.reply.id) == Place(position=1, is_reply=True)
    for nowhere in (gone.message.id, gone.reply.id, new_id(), session.id):
        assert await place(session, nowhere) is None
    for elsewhere in (first.message.id, first.reply.id):
        assert await place(other, elsewhere) is None
    assert await store.read(lambda tx: tx.archive.versions(session.id, 2, 2)) == {}, "of a deleted turn a key is left"


async def cut_of(store: AnyStore, session: Session, anchor: str | None, *, older: bool, limit: int) -> Cut:
    async def look(tx: Transaction) -> Cut:
        place = await tx.archive.place(session.id, anchor) if anchor else None
        leaf = Leaf(limit=limit, anchor=place, older=older)
        return leaf.cut(await tx.archive.turns(session.id, leaf.stretch))

    return await store.read(look)


async def pages(
    store: AnyStore, session: Session, anchor: str | None, *, older: bool, limit: int
) -> AsyncIterator[Sequence[Entry]]:
    """Go on from page to page, as a client does: by the id of the outermost message."""
    more = True
    while more:
        cut = await cut_of(store, session, anchor, older=older, limit=limit)
        yield cut.entries
        more = cut.more_before if older else cut.more_after
        if more:
            anchor = _id(cut.entries[0 if older else -1])


def _id(entry: Entry) -> str:
    return entry.turn.reply.id if entry.is_reply else entry.turn.message.id


@pytest.mark.parametrize("seed", range(6))
async def test_paging_either_way_shows_every_message_that_stays_exactly_once(store: AnyStore, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    session = await a_kept_session(store)
    turns = [a_turn(session, position, **chance.choice([GOOD, FAILED, SILENT, BLOCKED])) for position in range(1, 21)]
    await keep(store, *turns)
    for turn in chance.sample(turns, 8):
        await keep_versions(store, *(a_version(turn, n, **chance.choice([GOOD, FAILED])) for n in (2, 3)))
    gone = {turn.message.position for turn in chance.sample(turns[1:-1], 4)}
    for position in gone:
        await store.write(lambda tx, at=position: tx.turns.delete(session.id, at, NOW))  # type: ignore[misc]
    left = [turn for turn in turns if turn.message.position not in gone]
    expected = [slot for turn in left for slot in (2 * turn.message.position, 2 * turn.message.position + 1)]
    newest = iter(range(21, 1000))

    async def disturb() -> None:
        await keep(store, a_turn(session, next(newest), **GOOD))
        await keep_versions(store, a_version(chance.choice(left), next(newest), **GOOD))

    for older in (True, False):
        first = None if older else left[0].message.id
        seen: list[int] = [] if older else [2 * left[0].message.position]
        async for page in pages(store, session, first, older=older, limit=chance.randint(1, 5)):
            slots = [entry.place.slot for entry in page]
            seen = slots + seen if older else seen + slots
            if older or len(seen) < 60:
                await disturb()
        assert sorted(set(seen)) == seen, "in order, and none twice"
        assert [slot for slot in seen if slot < 42] == expected
