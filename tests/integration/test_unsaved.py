"""`saveHistory:false`: such a turn works like any other for as long as it lives, and stands in no table."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.ephemeral import EphemeralStore
from tests.fixtures.redis import RedisServer
from tests.fixtures.scribe import chance_of
from tests.fixtures.service import (
    Answer,
    Api,
    Person,
    Serve,
    data_of,
    reason_of,
    settings_for,
)
from tests.fixtures.streams import ask, delete, poll, rate, regenerate, resuming, stop, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm
from tests.integration.test_processes import rows


async def keep_nothing(person: Person, *, nothing: bool = True) -> None:
    """Let a person switch `saveHistory` off, or on again."""
    wish = {"saveHistory": not nothing}
    settings = data_of(await person.http.put("/v1/user/settings", json=wish, headers=person.bearer))
    assert settings["saveHistory"] is not nothing


@pytest.fixture
async def hidden(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> Person:
    """Somebody who wants nothing kept."""
    api: Api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login("dev:hidden")
    await keep_nothing(person)
    return person


async def kept(database: URL) -> list[tuple[Any, ...]]:
    counted = []
    for table in ("sessions", "messages"):
        counted += await rows(database, f"SELECT id FROM {table}")
    return counted


def said(vendor: LoopbackVendor, request: int = -1) -> list[str]:
    return [message["content"] for message in vendor.requests[request].messages]


# --- It works like any other turn -----------------------------------------------------------------------------------


async def test_an_unsaved_session_carries_its_context_and_stands_in_no_table(
    hidden: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    vendor.answers("one!", "two!", "three!")
    first = await hidden.says("one")
    stream = await streamed(hidden, "two", sessionId=first["sessionId"])
    assert stream.events[0].data["sessionId"] == first["sessionId"]
    third = await hidden.says("three", sessionId=first["sessionId"])
    assert said(vendor) == ["one", "one!", "two", "two!", "three"]
    shown = await hidden.look(third["messageId"])
    assert (shown["content"], shown["sessionId"], shown["versions"]) == (
        "three!",
        first["sessionId"],
        [third["messageId"]],
    )
    assert await kept(any_database) == []


async def test_everything_one_can_do_with_a_reply_works(hidden: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs("so far"), "anew", fails(500), "whole")
    async with streaming(hidden, "hello", clientMessageId="k") as stream:
        start = await stream.start()
        await stream.until_text("so far")
        waiting = asyncio.create_task(poll(hidden, start["messageId"], 25))
        async with resuming(hidden, start["messageId"]) as resumed:
            await resumed.until_text("so far")
            assert (await stop(hidden, start["messageId"]))["status"] == "stopped"
            await resumed.done()
        assert (await waiting)["content"] == "so far"
        await stream.done()
    again = await hidden.says("hello", clientMessageId="k")
    assert (again["messageId"], again["replayed"]) == (start["messageId"], True)
    second = await regenerate(hidden, start["messageId"])
    assert (second["reply"]["content"], second["sessionId"]) == ("anew", start["sessionId"])
    rated = await rate(hidden, second["messageId"], "like", comment="nice")
    assert rated["versions"] == [start["messageId"], second["messageId"]]
    assert rated["feedback"] == {"rating": "like", "comment": "nice"}
    failed = await hidden.send("fails", sessionId=start["sessionId"], clientMessageId="f")
    assert reason_of(failed) == (500, "llm_unavailable")
    whole = await hidden.says("fails", sessionId=start["sessionId"], clientMessageId="f")
    assert (whole["messageId"], whole["reply"]["content"]) == (failed.json()["turn"]["messageId"], "whole")
    assert reason_of(await ask(hidden, second["messageId"], "regenerate")) == (400, "not_last_turn")
    assert await delete(hidden, second["messageId"]) == {"deletedMessages": 3}
    assert reason_of(await hidden.send("hello", clientMessageId="k")) == (404, "message_not_found")
    assert reason_of(await ask(hidden, start["messageId"], "stop")) == (404, "message_not_found")


async def test_many_at_once_under_one_key_are_one_turn(hidden: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says(let_go, "the one"))
    sends = [asyncio.create_task(hidden.says("hello", clientMessageId="k")) for _ in range(8)]
    await vendor.until(lambda: vendor.busy == 1)
    let_go.set()
    answers = await asyncio.gather(*sends)
    assert len({answer["messageId"] for answer in answers}) == 1
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert len(vendor.requests) == 1


async def test_an_unsaved_session_is_its_users_alone(hidden: Person, any_database: URL, serve: Serve) -> None:
    sent = await hidden.says("hello")
    mallory = await Api(hidden.http, str(hidden.http.base_url)).login("dev:mallory")
    for nothing in (False, True):
        await keep_nothing(mallory, nothing=nothing)
        assert reason_of(await mallory.send("hi", sessionId=sent["sessionId"])) == (404, "session_not_found")
        for what, method in (("", "GET"), ("stream", "GET"), ("stop", "POST"), ("", "DELETE")):
            assert reason_of(await ask(mallory, sent["messageId"], what, method)) == (404, "message_not_found")


# --- Sessions of both kinds -----------------------------------------------------------------------------------------


async def test_a_saved_session_is_continued_in_a_new_unsaved_one(
    hidden: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    vendor.answers("kept!", "hidden!", "more!", "kept too!")
    await keep_nothing(hidden, nothing=False)
    saved = await hidden.says("kept", clientMessageId="s")
    await keep_nothing(hidden)
    before = await kept(any_database)
    unsaved = await hidden.says("hidden", sessionId=saved["sessionId"], clientMessageId="u")
    assert unsaved["sessionId"] != saved["sessionId"]
    assert said(vendor) == ["kept", "kept!", "hidden"], "its context starts from the saved one"
    assert await kept(any_database) == before
    again = await hidden.says("hidden", sessionId=saved["sessionId"], clientMessageId="u")
    assert (again["sessionId"], again["replayed"]) == (unsaved["sessionId"], True)
    assert (await hidden.says("kept", clientMessageId="s"))["replayed"], "keys of both kinds are known"
    await hidden.says("more", sessionId=unsaved["sessionId"])
    assert said(vendor) == ["kept", "kept!", "hidden", "hidden!", "more"]
    await keep_nothing(hidden, nothing=False)
    await hidden.says("kept too", sessionId=saved["sessionId"])
    assert said(vendor) == ["kept", "kept!", "kept too"], "the saved session knows nothing of it"


async def test_a_session_is_unsaved_for_life(hidden: Person, vendor: LoopbackVendor, any_database: URL) -> None:
    unsaved = await hidden.says("hidden")
    await keep_nothing(hidden, nothing=False)
    more = await hidden.says("still hidden", sessionId=unsaved["sessionId"])
    assert more["sessionId"] == unsaved["sessionId"]
    assert await kept(any_database) == []
    saved = await hidden.says("kept")
    assert [row[0] for row in await rows(any_database, "SELECT id FROM sessions")] == [saved["sessionId"]]


async def test_it_is_gone_after_a_restart_and_keys_with_it(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    settings = settings_for(any_database, llm=llm(vendor))
    first, second = await serve(settings), await serve(settings)
    person = await first.login()
    await keep_nothing(person)
    sent = await person.says("hidden", clientMessageId="k")
    elsewhere = Person(second.http, person.token, person.user)
    assert reason_of(await ask(elsewhere, sent["messageId"], method="GET")) == (404, "message_not_found")
    answer = await elsewhere.send("more", sessionId=sent["sessionId"])
    assert reason_of(answer) == (404, "session_not_found")
    assert not (await elsewhere.says("hidden", clientMessageId="k"))["replayed"]


async def test_after_its_time_a_session_is_gone_with_its_keys(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {"idle": timedelta(seconds=0.5), "sessions": 100}
    monkeypatch.setattr(EphemeralStore.__init__, "__kwdefaults__", defaults)
    person = await (await serve(settings_for(sqlite_url, llm=llm(vendor)))).login()
    await keep_nothing(person)
    sent = await person.says("hidden", clientMessageId="k")
    assert (await person.says("hidden", clientMessageId="k"))["replayed"]
    async with asyncio.timeout(5):
        while (gone := await ask(person, sent["messageId"], method="GET")).status_code == 200:
            pass
    assert reason_of(gone) == (404, "message_not_found")
    for what, method in (("stream", "GET"), ("stop", "POST"), ("regenerate", "POST"), ("", "DELETE")):
        assert reason_of(await ask(person, sent["messageId"], what, method)) == (404, "message_not_found")
    assert reason_of(await person.send("more", sessionId=sent["sessionId"])) == (404, "session_not_found")
    assert not (await person.says("hidden", clientMessageId="k"))["replayed"]


async def test_switching_off_and_on_over_http_leaves_no_trace_in_lists_history_or_export(
    hidden: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers("kept!", "hidden!", "more hidden!", "kept too!")
    await keep_nothing(hidden, nothing=False)
    saved = (await hidden.says("kept"))["sessionId"]
    shown = f"/v1/chat/history?sessionId={saved}"
    before = [data_of(await hidden.get(path)) for path in ("/v1/chat/sessions", shown)]
    await keep_nothing(hidden)
    unsaved = (await hidden.says("hidden", sessionId=saved))["sessionId"]
    await hidden.says("more hidden", sessionId=unsaved)
    assert [data_of(await hidden.get(path)) for path in ("/v1/chat/sessions", shown)] == before
    for path in (f"/v1/chat/history?sessionId={unsaved}", f"/v1/chat/sessions/{unsaved}"):
        assert reason_of(await hidden.get(path)) == (404, "session_not_found")
    assert "hidden" not in str((await hidden.get("/v1/user/export")).json()["sessions"])
    await keep_nothing(hidden, nothing=False)
    await hidden.says("kept too", sessionId=saved)
    items = data_of(await hidden.get(shown))["items"]
    assert [item["content"] for item in items] == ["kept", "kept!", "kept too", "kept too!"]
    assert len(data_of(await hidden.get("/v1/chat/sessions"))["items"]) == 1


async def test_a_key_used_on_two_instances_while_the_setting_changes_is_one_turn(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, shared_redis: RedisServer
) -> None:
    settings = settings_for(any_database, llm=llm(vendor), redis={"url": shared_redis.url})
    here, there = await serve(settings), await serve(settings)
    person = await here.login()
    elsewhere = Person(there.http, person.token, person.user)
    chance = chance_of(5)

    async def soon(doing: Coroutine[Any, Any, Answer]) -> Answer:
        await asyncio.sleep(chance.uniform(0, 0.005))
        return await doing

    for number in range(40):
        wish = {"saveHistory": number % 2 == 1}
        changing = person.http.put("/v1/user/settings", json=wish, headers=person.bearer)
        sending = [each.send("hello", clientMessageId=f"key-{number}") for each in (person, elsewhere) * 2]
        _, *answers = await asyncio.gather(*map(soon, (changing, *sending)))
        assert len({data_of(answer)["messageId"] for answer in answers if answer.status_code == 200}) == 1
        refused = {reason_of(answer) for answer in answers if answer.status_code != 200}
        assert refused <= {(500, "database_unavailable")}, "to be sent again"
    assert len(vendor.requests) == 40
