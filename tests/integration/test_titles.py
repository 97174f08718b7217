"""Titles by a model over HTTP: an event where one is ready in time, else the session's alone; no reply waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.logs import RUN
from tests.fixtures.miniprogram import Started
from tests.fixtures.service import Person, Serve, serving, settings_for
from tests.fixtures.streams import ask, resuming, stop, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import (
    DONE,
    Behaviour,
    Call,
    Received,
    event,
    fails,
    floods,
    hangs,
    piece,
    resets,
    says,
    sends,
    usage,
)
from tests.integration.test_document import llm
from tests.integration.test_processes import rows
from tests.integration.test_unsaved import keep_nothing
from tests.integration.watching import CODE, assert_true, thinks

TITLES = "titles-1"
TITLE = "春天里的一首诗 🌸"
QUESTION = "写一首关于春天的诗"
LONG = "字" * 200


class Vendor:
    """The loopback vendor with two models; what the one for titles does is set apart."""

    def __init__(self, loopback: LoopbackVendor) -> None:
        self.loopback = loopback
        self.reply: Behaviour = says(LONG)
        self.title: Behaviour = says(TITLE)
        loopback.script = self._answer

    @property
    def asked(self) -> list[Received]:
        """What the model for titles was sent."""
        return [request for request in self.loopback.requests if request.body["model"] == TITLES]

    async def _answer(self, call: Call) -> None:
        await (self.title if call.request.body["model"] == TITLES else self.reply)(call)


@pytest.fixture
def both(vendor: LoopbackVendor) -> Vendor:
    RUN.keep_private(TITLE, QUESTION)
    return Vendor(vendor)


@pytest.fixture
async def person(any_database: URL, serve: Serve, both: Vendor) -> Person:
    """Somebody whose new sessions a model names."""
    return await somebody(any_database, serve, both)


async def somebody(database: URL, serve: Serve, both: Vendor, **more: Any) -> Person:
    api = await serve(settings_for(database, llm=llm(both.loopback, title_model=TITLES, **more)))
    person: Person = await api.login()
    return person


Called = Callable[[str], Awaitable[tuple[str, str]]]


@pytest.fixture
def called(any_database: URL, both: Vendor) -> Called:
    """Tell what a session is called, and who called it so."""

    async def look(session_id: str) -> tuple[str, str]:
        statement = f"SELECT title, title_source FROM sessions WHERE id = '{session_id}'"
        [(title, source)] = await rows(any_database, statement)
        return title, source

    return look


async def until_called(called: Called, session_id: str, source: str = "model") -> str:
    async with asyncio.timeout(10):
        while (found := await called(session_id))[1] != source:  # noqa: ASYNC110 - it is only in the database
            await asyncio.sleep(0.02)
    return found[0]


async def test_a_title_that_is_ready_in_time_is_told_in_the_stream_and_is_stored_by_then(
    any_database: URL, person: Person, both: Vendor, called: Called
) -> None:
    let_go = asyncio.Event()
    both.reply = says(LONG, let_go, "。")
    async with streaming(person, QUESTION) as stream:
        start = await stream.start()
        while stream.names[-1] != "title":
            await stream.next()
        assert await called(start["sessionId"]) == (TITLE, "model")
        let_go.set()
        done = await stream.done()
    assert stream.names == ["start", "delta", "title", "delta", "done"]
    assert [each.seq for each in stream.events] == [None, 1, 2, 3, 4]
    assert stream.events[2].data == {"sessionId": start["sessionId"], "title": TITLE}
    assert (stream.content, done["length"]) == (LONG + "。", 201)
    assert done["usage"] == {"inputTokens": 7, "outputTokens": 5}, "the title's own is not the user's matter"
    counted = await rows(any_database, "SELECT messages, input_tokens, output_tokens FROM usage_days")
    assert counted == [(1, 7, 5)]

    for after, rest in ((0, stream.events[1:]), (1, stream.events[2:]), (2, stream.events[3:])):
        async with resuming(person, start["messageId"], after, LONG if after else "") as again:
            await again.done()
        assert again.events[1:] == rest


async def test_what_the_model_for_titles_is_asked(person: Person, both: Vendor, called: Called) -> None:
    both.reply = says("答" * 150, "答" * 150)
    stream = await streamed(person, "问" * 300)
    session_id = stream.events[0].data["sessionId"]
    assert await until_called(called, session_id) == TITLE
    await streamed(person, "more", sessionId=session_id)
    [asked] = both.asked
    assert [message["role"] for message in asked.messages] == ["system", "user"]
    shown = asked.messages[1]["content"]
    assert (shown.count("问"), shown.count("答")) == (200, 200)


async def test_a_slow_title_holds_nobody_up(person: Person, both: Vendor, called: Called) -> None:
    let_go = asyncio.Event()
    both.title = says(let_go, TITLE)
    async with asyncio.timeout(5):
        stream = await streamed(person, QUESTION)
        said = await person.says(QUESTION)
    assert stream.names == ["start", "delta", "done"]
    sessions = (stream.events[0].data["sessionId"], said["sessionId"])
    assert [await called(session_id) for session_id in sessions] == [(QUESTION, "question")] * 2
    let_go.set()
    for session_id in sessions:
        assert await until_called(called, session_id) == TITLE
    async with resuming(person, stream.events[0].data["messageId"]) as again:
        await again.done()
    assert again.names == ["start", "delta", "done"], "what has ended stays as it ended"


async def test_a_short_reply_is_titled_when_it_has_ended(person: Person, both: Vendor, called: Called) -> None:
    both.reply = says("好")
    stream = await streamed(person, QUESTION)
    assert stream.names == ["start", "delta", "done"]
    assert await until_called(called, stream.events[0].data["sessionId"]) == TITLE


@pytest.mark.parametrize(
    "behaviour",
    [
        fails(429, headers={"Retry-After": "1"}),
        fails(500, "<html>标题</html>"),
        fails(401),
        fails(404, {"error": {"message": "no such model"}}),
        fails(400, {"error": {"code": "content_filter"}}),
        resets("A ti"),
        says("A ti", finish=None, done=False),
        says("A title", finish="content_filter"),
        says(),
        sends(b"<html>not a vendor</html>", content_type="text/html"),
        sends(thinks("a title"), event(piece(finish="stop")), event(usage()), DONE),
        says("<think>a title that is only"),
        says("好的，标题如下："),
        hangs("A ti"),
    ],
    ids=[
        *("429", "500", "401", "404", "refused", "reset", "broken off", "blocked", "empty", "html"),
        *("thinking", "thinking aloud", "an introduction", "hanging"),
    ],
)
async def test_where_no_title_comes_the_first_words_stay(
    sqlite_url: URL, serve: Serve, both: Vendor, behaviour: Behaviour
) -> None:
    both.title = behaviour
    person = await somebody(sqlite_url, serve, both, idle_timeout=0.2)
    stream = await streamed(person, QUESTION)
    assert stream.names == ["start", "delta", "done"]
    await both.loopback.until(lambda: both.asked != [] and both.loopback.busy == 0)
    stream = await streamed(person, "next", sessionId=stream.events[0].data["sessionId"])
    assert stream.content == LONG
    found = await rows(sqlite_url, "SELECT title, title_source FROM sessions")
    assert found == [(QUESTION, "question")]
    assert len(both.asked) == 1, "nothing is tried again"


@pytest.mark.parametrize(
    ("behaviour", "title"),
    [
        (sends(thinks("one, or another?"), event(piece("春天的")), event(piece("诗", "stop")), DONE), "春天的诗"),
        (says("<think>\nhm", "m\n</think>\n\n", "**标题：**“春天的诗”"), "春天的诗"),
        (says("春\u202e天\u0000的诗\n\n这个标题……"), "春天的诗"),
        (says("长" * 500), "长" * 60),
        (floods(event(piece("长"))), "长" * 60),
    ],
    ids=["thinking", "thinking aloud", "odd characters", "long", "endless"],
)
async def test_of_whatever_comes_one_clean_line_is_the_title(
    sqlite_url: URL, serve: Serve, both: Vendor, behaviour: Behaviour, title: str
) -> None:
    both.title = behaviour
    person = await somebody(sqlite_url, serve, both)
    await streamed(person, QUESTION)
    async with asyncio.timeout(10):
        while (found := await rows(sqlite_url, "SELECT title, title_source FROM sessions")) != [(title, "model")]:
            assert found == [(QUESTION, "question")]
            await asyncio.sleep(0.02)
    await both.loopback.until(lambda: both.loopback.busy == 0)


async def test_a_title_by_its_user_is_never_overwritten(
    any_database: URL, person: Person, both: Vendor, called: Called
) -> None:
    title, reply = asyncio.Event(), asyncio.Event()
    both.title, both.reply = says(title, TITLE), says(LONG, reply)
    async with streaming(person, QUESTION) as stream:
        session_id = (await stream.start())["sessionId"]
        await both.loopback.until(lambda: both.asked != [])
        await rows(any_database, f"UPDATE sessions SET title='我的', title_source='user' WHERE id='{session_id}'")
        title.set()
        await both.loopback.until(lambda: both.loopback.busy == 1)
        await asyncio.sleep(0.1)
        reply.set()
        await stream.done()
    assert stream.names == ["start", "delta", "done"]
    assert await called(session_id) == ("我的", "user")


async def test_a_failed_first_turn_is_titled_when_it_is_sent_again(
    person: Person, both: Vendor, called: Called
) -> None:
    both.reply = says("half", finish=None, done=False)
    async with streaming(person, QUESTION, clientMessageId="k") as stream:
        session_id = (await stream.start())["sessionId"]
        await stream.error()
    assert both.asked == []
    let_go = asyncio.Event()
    both.reply = says(LONG, let_go)
    async with streaming(person, QUESTION, clientMessageId="k") as stream:
        assert (await stream.start())["sessionId"] == session_id
        while stream.names[-1] != "title":
            await stream.next()
        let_go.set()
        await stream.done()
    assert stream.names == ["start", "replace", "delta", "title", "done"]
    assert [each.seq for each in stream.events][1:] == [1_000_001, 1_000_002, 1_000_003, 1_000_004]
    assert await called(session_id) == (TITLE, "model")


async def test_a_stopped_reply_is_titled_and_a_deleted_turn_is_not(
    person: Person, both: Vendor, called: Called
) -> None:
    both.reply = hangs("half")
    async with streaming(person, QUESTION) as stream:
        start = await stream.start()
        await stream.until_text("half")
        await stop(person, start["messageId"])
        await stream.done()
    assert await until_called(called, start["sessionId"]) == TITLE

    let_go = asyncio.Event()
    both.title, both.reply = says(let_go, TITLE), says("short")
    said = await person.says(QUESTION)
    await both.loopback.until(lambda: len(both.asked) == 2)
    await person.says("next", sessionId=said["sessionId"])
    assert (await ask(person, said["messageId"], method="DELETE")).status_code == 200
    let_go.set()
    await both.loopback.until(lambda: both.loopback.busy == 0)
    await asyncio.sleep(0.1)
    assert await called(said["sessionId"]) == ("next", "question"), "the turn that is first now"


async def test_titles_take_no_connection_from_replies(sqlite_url: URL, serve: Serve, both: Vendor) -> None:
    person = await somebody(sqlite_url, serve, both, max_connections=1)
    both.title = hangs()
    async with asyncio.timeout(5):
        for _ in range(3):
            await streamed(person, QUESTION)
        await both.loopback.until(lambda: len(both.asked) == 3)


async def test_a_service_that_ends_waits_for_no_title(sqlite_url: URL, both: Vendor) -> None:
    both.title = hangs()
    settings = settings_for(sqlite_url, llm=llm(both.loopback, title_model=TITLES), http={"drain_seconds": 20})
    async with serving(settings) as api:
        person = await api.login()
        await streamed(person, QUESTION)
        await both.loopback.until(lambda: both.asked != [])
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 5
    await both.loopback.until(lambda: both.loopback.busy == 0)


async def test_nothing_of_an_unsaved_session_is_sent_to_be_titled(sqlite_url: URL, serve: Serve, both: Vendor) -> None:
    person = await somebody(sqlite_url, serve, both)
    await keep_nothing(person)
    await streamed(person, QUESTION)
    await asyncio.sleep(0.1)
    assert both.asked == []


async def test_the_client_shows_the_title(sqlite_url: URL, serve: Serve, both: Vendor, mini_program: Started) -> None:
    let_go = asyncio.Event()
    both.reply = says(LONG, let_go)
    api = await serve(settings_for(sqlite_url, llm=llm(both.loopback, title_model=TITLES)))
    await api.login(CODE)
    phone = await mini_program(api.base_url)
    await phone.send(QUESTION)
    await phone.until(lambda: bool(phone.reply().get("title")))
    let_go.set()
    shown = await assert_true(api, phone)
    assert (shown["title"], shown["text"]) == (TITLE, LONG)
