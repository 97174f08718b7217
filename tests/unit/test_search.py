"""How much a search looks through at once, and what it shows of a hit."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from chatassist.adapters.limits.memory import MemoryLimiter
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.domain.errors import ContentInvalid, KeywordEmpty, KeywordTooLong, StoreUnavailable, TooManyReads
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.search import Looked
from chatassist.domain.search import LEAD, SHOWN, checked_keyword, excerpt_start, snippet_of
from chatassist.domain.services.search import SearchRules, SearchService
from tests.builders import a_user


class EndlessStore(MemoryStore):
    """Holds messages without end, of which none is a hit. `slow`: how many seconds a portion of so many takes."""

    def __init__(self, slow: Callable[[int], float] = lambda _: 0.0) -> None:
        super().__init__()
        self.portions: list[int] = []
        self._slow = slow

    async def read(self, query: Callable[[Any], Awaitable[Any]]) -> Any:
        return await query(SimpleNamespace(search=self))

    async def look(self, *_: str, before: str | None, messages: int, limit: int) -> Looked:
        self.portions.append(messages)
        await asyncio.sleep(self._slow(messages))
        return Looked(hits=[], down_to=f"{before or ''}x")


def service(store: MemoryStore, **rules: Any) -> SearchService:
    return SearchService(store, MemoryLimiter({}), SearchRules(**rules))


# --- Portions -------------------------------------------------------------------------------------------------------


async def test_short_messages_are_looked_through_in_few_portions() -> None:
    store = EndlessStore()
    found = await service(store).find(a_user(), "word")
    assert store.portions == [250, 1000, 4000, 4750]
    assert (found.hits, found.before) == ([], "xxxx")


async def test_long_messages_are_looked_through_in_small_portions_until_the_time_is_over() -> None:
    store = EndlessStore(lambda _: 0.02)
    found = await service(store, brisk=0.01, seconds=0.05).find(a_user(), "word")
    assert store.portions == [250] * len(found.before or "")
    assert 2 <= len(store.portions) <= 4


async def test_a_portion_that_takes_too_long_ends_the_page_before_it() -> None:
    def heavy(messages: int) -> float:
        if messages > 250:
            raise StoreUnavailable
        return 0.0

    found = await service(EndlessStore(heavy)).find(a_user(), "word")
    assert found.before == "x"
    again = EndlessStore(heavy)
    assert (await service(again).find(a_user(), "word", before=found.before)).before == "xx", "and goes on"


async def test_where_nothing_can_be_looked_at_the_search_fails() -> None:
    def away(_: int) -> float:
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        await service(EndlessStore(away)).find(a_user(), "word")


async def test_a_search_counts_as_a_read_but_not_one_that_is_none() -> None:
    searching = SearchService(MemoryStore(), MemoryLimiter({Rule.READS: 1}), SearchRules())
    user = a_user()
    with pytest.raises(KeywordEmpty):
        await searching.find(user, " ")
    await searching.find(user, "word")
    with pytest.raises(TooManyReads):
        await searching.find(user, "word")


# --- Keywords and snippets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", KeywordEmpty),
        (" \u3000\n", KeywordEmpty),
        ("x" * 51, KeywordTooLong),
        ("a\x00", ContentInvalid),
        ("\ud83d", ContentInvalid),
        ("\r", ContentInvalid),
    ],
    ids=ascii,
)
def test_what_is_no_keyword_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        checked_keyword(text)


@pytest.mark.parametrize("text", ["x", "字" * 50, "😀" * 50, "\u200b", "%", "a\tb"], ids=ascii)
def test_a_keyword_is_trimmed_and_otherwise_left_alone(text: str) -> None:
    assert checked_keyword(text) == checked_keyword(f" {text}\n") == text


def test_a_snippet_holds_the_longest_keyword_whole_and_is_one_line() -> None:
    keyword = "字" * 50
    text = "a\n" * 50 + keyword + " b" * 50
    at = text.index(keyword)
    start = excerpt_start(at)
    snippet = snippet_of(text[start : start + SHOWN + 1], at)
    assert snippet == f"…{'a ' * (LEAD // 2)}{keyword}{' b' * 5}…"


def test_a_text_that_fits_is_shown_as_it_is() -> None:
    assert snippet_of("two  blanks stay", 0) == "two  blanks stay"
    assert snippet_of("x" * SHOWN, LEAD) == "x" * SHOWN
