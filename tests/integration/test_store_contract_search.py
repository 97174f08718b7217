"""What every store promises about searching: the hits of a naive search in Python, over all pages, and no others."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from chatassist.adapters.limits.memory import MemoryLimiter
from chatassist.domain.model import Session, User
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.search import Hit, Looked
from chatassist.domain.services.search import SearchRules, SearchService
from chatassist.domain.turns import Status, Turn
from tests.builders import NOW, a_session, a_turn, a_user, a_version, new_id
from tests.fixtures.databases import AnyStore
from tests.integration.storing import keep, keep_versions

TRICKY = (
    "a",
    "A",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "%",
    "_",
    "\\",
    "'",
    '"',
    "的",
    "你好",
    "😀",
    "👨‍👩‍👧",
    " ",
    "  ",
    "\u200b",
    "\n",
    "Ａ",
)
SAID: dict[str, Any] = {"status": Status.COMPLETE, "content": "said"}


async def listed(store: AnyStore, user: User, **given: Any) -> Session:
    await keep(store, session := a_session(user, spoken=True, **given))
    return session


async def look(store: AnyStore, user: User, keyword: str, messages: int = 100, limit: int = 100) -> Looked:
    return await store.read(lambda tx: tx.search.look(user.id, keyword, before=None, messages=messages, limit=limit))


async def found(store: AnyStore, user: User, keyword: str) -> list[str]:
    """Return the ids of all hits."""
    return [hit.message_id for hit in (await look(store, user, keyword)).hits]


async def pages(store: Store, user: User, keyword: str, rules: SearchRules, limit: int) -> list[Hit]:
    """Return all hits, page by page."""
    service = SearchService(store, MemoryLimiter({}), rules)
    hits: list[Hit] = []
    before = None
    while True:
        page = await service.find(user, keyword, before=before, limit=limit)
        assert len(page.hits) <= limit
        hits += page.hits
        if page.before is None:
            return hits
        assert before is None or page.before < before, "it goes on"
        before = page.before


# --- What is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keyword", "hit"),
    [
        ("明天去杭州出差", "杭", True),
        ("明天去杭州出差", "杭出", False),
        ("100% sure", "%", True),
        ("100 percent", "%", False),
        ("snake_case", "_", True),
        ("snake case", "_", False),
        ("C:\\dir", "\\", True),
        ("C:/dir", "\\", False),
        ("it's", "'", True),
        ('so "quoted"', '"', True),
        ("'; DROP TABLE messages; -- %s :x ?", "'; DROP TABLE messages; -- %s :x ?", True),
        ("Straße", "straße", False),
        ("Straße", "ss", False),
        ("Ｆull", "F", False),
        ("caf\u00e9", "caf\u00e9", True),
        ("caf\u00e9", "cafe", False),
        ("caf\u00e9", "cafe\u0301", False),
        ("cafe\u0301", "caf\u00e9", False),
        ("cafe\u0301", "cafe", True),
        ("thumbs 👍 up", "👍", True),
        ("thumbs 👍 up", "👎", False),
        ("skin 👍🏽", "👍", True),
        ("one  two", "one two", False),
        ("one two", "one  two", False),
        ("zero\u200bwidth", "zerowidth", False),
        ("zero\u200bwidth", "\u200b", True),
        ("lines\nbelow", "s\nb", True),
        ("の", "ノ", False),
        ("\U00010428", "\U00010400", False),
    ],
)
async def test_a_keyword_is_its_exact_code_points(store: AnyStore, text: str, keyword: str, hit: bool) -> None:
    session = await listed(store, user := a_user())
    turn = a_turn(session, text=text, **SAID)
    await keep(store, turn)
    assert await found(store, user, keyword) == ([turn.message.id] if hit else [])


async def test_a_hit_tells_where_it_is_and_when_it_was_said(store: AnyStore) -> None:
    later = NOW + timedelta(seconds=7)
    session = await listed(store, user := a_user(), title="a title")
    turn = a_turn(session, text="the word", status=Status.COMPLETE, content="word for word", ended_at=later)
    await keep(store, turn)
    shared = {"session_id": session.id, "title": "a title"}
    assert list((await look(store, user, "word")).hits) == [
        Hit(message_id=turn.reply.id, snippet="word for word", at=later, **shared),
        Hit(message_id=turn.message.id, snippet="the word", at=NOW, **shared),
    ]


@pytest.mark.parametrize("ends", [0, 1, 19, 20, 21, 60, 61, 64_000])
async def test_a_snippet_is_cut_by_characters_wherever_the_hit_lies(store: AnyStore, ends: int) -> None:
    session = await listed(store, user := a_user())
    before, after = "前😀" * (ends // 2) + "x" * (ends % 2), "後👍" * (ends // 2)
    await keep(store, a_turn(session, text=f"{before}词{after}", **SAID))
    [hit] = (await look(store, user, "词")).hits
    shown = f"{before[max(ends - 20, 0) :]}词{after}"
    assert hit.snippet == f"{'…' if ends > 20 else ''}{shown[:80]}{'…' if len(shown) > 80 else ''}"


# --- Whose and which messages ---------------------------------------------------------------------------------------


async def test_only_what_the_user_can_see_is_found(store: AnyStore) -> None:
    user, other = a_user(), a_user()
    session = await listed(store, user)
    unlisted, deleted = a_session(user), a_session(user, spoken=True, deletion_id=new_id())
    seen = a_turn(session, 1, text="word", status=Status.FAILED, content="half a word", thinking="word")
    thought = a_turn(session, 2, text="q", thinking="word", **SAID)
    theirs = a_turn(await listed(store, other), 1, text="word", **SAID)
    nowhere = [a_turn(one, 1, text="word", status=Status.FAILED, content="word") for one in (unlisted, deleted)]
    await keep(store, unlisted, deleted, seen, thought, theirs, *nowhere)
    assert await found(store, user, "word") == [seen.reply.id, seen.message.id]
    assert await found(store, other, "word") == [theirs.message.id]


@pytest.mark.parametrize(
    ("versions", "shown"),
    [
        ((Status.COMPLETE, Status.COMPLETE), 1),
        ((Status.COMPLETE, Status.RUNNING), 0),
        ((Status.STOPPED, Status.FAILED), 0),
        ((Status.FAILED, Status.RUNNING), 1),
        ((Status.FAILED, Status.STOPPED, Status.FAILED), 1),
    ],
)
async def test_of_several_versions_the_one_that_is_shown_is_found(
    store: AnyStore, versions: Sequence[Status], shown: int
) -> None:
    session = await listed(store, user := a_user())
    first = a_turn(session, text="q", status=versions[0], content="word")
    more = [a_version(first, number, status=each, content="word") for number, each in enumerate(versions[1:], 2)]
    await keep(store, first)
    await keep_versions(store, *more)
    assert await found(store, user, "word") == [[first, *more][shown].reply.id]


async def test_a_deleted_turn_is_not_found_nor_its_key(store: AnyStore) -> None:
    session = await listed(store, user := a_user())
    await keep(store, turn := a_turn(session, text="word", key="word", status=Status.COMPLETE, content="word"))
    assert len(await found(store, user, "word")) == 2
    await store.write(lambda tx: tx.turns.delete(session.id, turn.message.position, NOW))
    assert await found(store, user, "word") == []


# --- How far it looks -----------------------------------------------------------------------------------------------


async def test_so_many_messages_are_looked_at_and_no_more(store: AnyStore) -> None:
    session = await listed(store, user := a_user())
    turns = [a_turn(session, position, text="word", **SAID) for position in range(1, 6)]
    await keep(store, *turns)
    rows = [each for turn in reversed(turns) for each in (turn.reply.id, turn.message.id)]
    for messages in range(1, 12):
        looked = await look(store, user, "word", messages=messages)
        assert [hit.message_id for hit in looked.hits] == [turn.message.id for turn in reversed(turns)][: messages // 2]
        assert looked.down_to == (rows[messages - 1] if messages <= len(rows) else None)


async def test_nobody_finds_anything_where_nothing_is(store: AnyStore) -> None:
    assert await look(store, a_user(), "word") == Looked(hits=[], down_to=None)


@pytest.mark.parametrize("seed", range(3))
async def test_all_pages_together_are_what_a_naive_search_finds(store: AnyStore, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    user = a_user()
    expected = await a_library(store, user, dice)
    await a_library(store, a_user(), dice)
    for _ in range(12):
        keyword = words(dice, 3).strip() or "的"
        rules = SearchRules(messages=dice.choice((7, 20, 1000)), portion=dice.choice((3, 10, 1000)))
        hits = await pages(store, user, keyword, rules, limit=dice.choice((1, 4, 100)))
        naive = sorted((text_id for text_id, text in expected.items() if keyword in text), reverse=True)
        assert [hit.message_id for hit in hits] == naive, keyword


async def a_library(store: AnyStore, user: User, dice: random.Random) -> dict[str, str]:
    """Keep sessions of all kinds, their messages mixed in time; return the texts that can be seen, by id."""
    kinds: list[dict[str, Any]] = [{"spoken": True}, {"running": 1}, {}, {"spoken": True, "deletion_id": new_id()}]
    sessions = [a_session(user, **dice.choice(kinds)) for _ in range(6)]
    await keep(store, *sessions)
    seen: dict[str, str] = {}
    for position in range(1, 5):
        for session in dice.sample(sessions, len(sessions)):
            turn = a_turn(session, position, text=words(dice, 8), **some_reply(dice))
            more = [a_version(turn, number, **some_reply(dice)) for number in range(2, dice.randint(2, 4))]
            await keep(store, turn)
            await keep_versions(store, *more)
            if session.listed_at is not None:
                shown = shown_of([turn, *more])
                seen |= {turn.message.id: turn.message.content, shown.reply.id: shown.reply.content}
    return seen


def some_reply(dice: random.Random) -> dict[str, Any]:
    return {"status": dice.choice(list(Status)), "content": dice.choice(("", words(dice, 8))), "thinking": "的"}


def words(dice: random.Random, most: int) -> str:
    return "".join(dice.choices(TRICKY, k=dice.randint(1, most)))


def shown_of(versions: Sequence[Turn]) -> Turn:
    return max(versions, key=lambda turn: (turn.reply.good, turn.reply.version))


async def test_a_page_that_was_shown_stays_as_it_is_while_messages_are_added(store: AnyStore) -> None:
    session = await listed(store, user := a_user())
    turns = [a_turn(session, position, text="word", **SAID) for position in range(1, 7)]
    await keep(store, *turns[:4])
    service = SearchService(store, MemoryLimiter({}), SearchRules())
    first = await service.find(user, "word", limit=2)
    await keep(store, *turns[4:])
    second = await service.find(user, "word", before=first.before, limit=2)
    ids = [hit.message_id for page in (first, second) for hit in page.hits]
    assert ids == [turn.message.id for turn in reversed(turns[:4])]
    assert second.before is None


async def test_a_search_that_has_no_time_left_goes_on_by_its_cursor(store: AnyStore) -> None:
    session = await listed(store, user := a_user())
    turns = [a_turn(session, position, text="word", **SAID) for position in range(1, 7)]
    await keep(store, *turns)
    hurried = SearchRules(portion=1, seconds=1e-9)
    assert [hit.message_id for hit in await pages(store, user, "word", hurried, 100)] == [
        turn.message.id for turn in reversed(turns)
    ]
