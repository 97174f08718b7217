"""Deleting sessions, one or all, and having them back: over HTTP, on each database."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.aftermath import rows
from tests.fixtures.service import Answer, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import ask, delete, regenerate, resuming, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm
from tests.integration.test_instances import two

WEEK = timedelta(days=7)
NOTHING = {"deletedSessions": 0, "deletedMessages": 0, "undoToken": None, "undoUntil": None}
ZEROS = {"restoredSessions": 0, "restoredMessages": 0}


async def deletes(person: Person, session_id: str) -> Answer:
    return await person.http.delete(f"/v1/chat/sessions/{session_id}", headers=person.bearer)


async def clears(person: Person, **query: str) -> Answer:
    return await person.http.delete("/v1/chat/history", params=query, headers=person.bearer)


async def restores(person: Person, token: Any) -> Answer:
    body = {"undoToken": token}
    return await person.http.post("/v1/chat/history/restore", json=body, headers=person.bearer)


async def row_of(database: URL, session_id: str) -> tuple[Any, ...]:
    columns = "title, preview, pinned, turns, messages, running, spoken, updated_at, listed_at, deletion_id"
    [row] = await rows(database, f"SELECT {columns} FROM sessions WHERE id = '{session_id}'")
    return row


async def listing(person: Person) -> Any:
    return data_of(await person.get("/v1/chat/sessions"))["items"]


async def age(database: URL, token: str) -> None:
    """Let the time of a deletion be over."""
    await rows(database, f"UPDATE deletions SET until = '2020-01-01 00:00:00' WHERE id = '{token}'")


async def is_gone(person: Person, sent: Any, key: str | None = None) -> bool:
    """Tell whether everything that names a session, or a reply in it, is 404; all of them, or none."""
    message_id, session_id = sent["messageId"], sent["sessionId"]
    of_message = [
        await ask(person, message_id, method="GET"),
        await ask(person, message_id, "stream", "GET"),
        await ask(person, message_id, "stream", "GET", params={"after": "1"}),
        await ask(person, message_id, "feedback", "PUT", json={"rating": None}),
        *([await person.send("first", clientMessageId=key)] if key else []),
    ]
    gone = {answer.status_code for answer in of_message}
    if gone == {200}:
        return False
    answers = [
        *of_message,
        await ask(person, message_id, "stop"),
        await ask(person, message_id, "regenerate"),
        await ask(person, message_id, "regenerate/stream"),
        await ask(person, message_id, method="DELETE"),
    ]
    assert {reason_of(answer) for answer in answers} == {(404, "message_not_found")}
    of_session = [
        await person.send("more", sessionId=session_id),
        await person.http.post(
            "/v1/chat/message/stream", json={"content": "more", "sessionId": session_id}, headers=person.bearer
        ),
        await person.get(f"/v1/chat/sessions/{session_id}"),
        await person.http.put(f"/v1/chat/sessions/{session_id}", json={"pinned": True}, headers=person.bearer),
        await person.get(f"/v1/chat/history?sessionId={session_id}"),
        await person.get(f"/v1/chat/history?sessionId={session_id}&before={message_id}"),
    ]
    assert {reason_of(answer) for answer in of_session} == {(404, "session_not_found")}
    return True


# --- One session ----------------------------------------------------------------------------------------------------


async def test_a_session_is_deleted_with_everything_in_it_and_comes_back_as_it_was(
    person: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    vendor.answers("one", "two", "two again", "elsewhere", "three")
    first = await person.says("first", clientMessageId="k")
    session = first["sessionId"]
    second = await person.says("second", sessionId=session)
    await regenerate(person, second["messageId"])
    other = await person.says("elsewhere")
    data_of(await person.http.put(f"/v1/chat/sessions/{session}", json={"pinned": True}, headers=person.bearer))
    before, listed = await row_of(any_database, session), await listing(person)
    assert [item["sessionId"] for item in listed] == [session, other["sessionId"]]

    deleted = data_of(await deletes(person, session))

    assert (deleted["deletedSessions"], deleted["deletedMessages"]) == (1, 4), "as the history shows them"
    until = datetime.strptime(deleted["undoUntil"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(0) <= datetime.now(UTC) + WEEK - until < timedelta(minutes=1)
    assert await is_gone(person, first, "k")
    assert not await is_gone(person, other)
    assert await listing(person) == listed[1:]
    restored = data_of(await restores(person, deleted["undoToken"]))
    assert restored == {"restoredSessions": 1, "restoredMessages": 4}
    assert await row_of(any_database, session) == before
    assert await listing(person) == listed
    assert not await is_gone(person, first, "k")
    await person.says("third", sessionId=session)
    told = [message["content"] for message in vendor.requests[-1].messages]
    assert told == ["first", "one", "second", "two again", "third"]


@pytest.mark.parametrize("by_history", [False, True])
async def test_deleting_again_answers_the_same_and_restoring_again_restores_nothing(
    person: Person, by_history: bool
) -> None:
    session = (await person.says("hello"))["sessionId"]

    async def again() -> Any:
        return data_of(await (clears(person, sessionId=session) if by_history else deletes(person, session)))

    answers = [await again(), *await asyncio.gather(*(again() for _ in range(4)))]
    assert all(answer == answers[0] for answer in answers)
    token = answers[0]["undoToken"]
    assert data_of(await restores(person, token)) == {"restoredSessions": 1, "restoredMessages": 2}
    for _ in range(2):
        assert data_of(await restores(person, token)) == ZEROS
    anew = await again()
    assert anew["undoToken"] != token
    assert data_of(await restores(person, token)) == ZEROS, "an old token undoes nothing new"
    assert data_of(await restores(person, anew["undoToken"])) == {"restoredSessions": 1, "restoredMessages": 2}


async def test_many_deletions_of_one_session_at_once_are_one(person: Person, any_database: URL) -> None:
    session = (await person.says("hello"))["sessionId"]
    answers = await asyncio.gather(*(deletes(person, session) for _ in range(8)))
    assert len({answer.text for answer in answers}) == 1
    assert len(await rows(any_database, "SELECT id FROM deletions")) == 1


async def test_what_is_no_session_of_the_user_cannot_be_deleted(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    alice, mallory = await api.login("dev:alice"), await api.login("dev:mallory")
    sent = await alice.says("hello")
    answers = []
    for session_id in (sent["sessionId"], sent["messageId"], "0" * 32, "nonsense", "%F0%9F%98%80"):
        answers += [await deletes(mallory, session_id), await clears(mallory, sessionId=session_id)]
    answers.append(await deletes(alice, sent["messageId"]))
    assert {reason_of(answer) for answer in answers} == {(404, "session_not_found")}
    assert len({answer.text.partition('"requestId"')[0] for answer in answers}) == 1, "all alike"
    data_of(await deletes(alice, sent["sessionId"]))
    assert reason_of(await deletes(mallory, sent["sessionId"])) == (404, "session_not_found")


async def test_what_is_not_kept_cannot_be_deleted_here(person: Person, any_database: URL) -> None:
    await rows(any_database, f"UPDATE users SET save_history = {0} WHERE id = '{person.user['id']}'")
    unsaved = await person.says("hello")
    assert reason_of(await deletes(person, unsaved["sessionId"])) == (404, "session_not_found")
    assert data_of(await clears(person, all="true")) == NOTHING
    assert not await is_gone(person, unsaved)


async def test_what_was_deleted_is_no_background_either(
    person: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    """An unsaved session that continues a saved one forgets it with that, and remembers it again."""
    vendor.answers("kept", "first", "second", "third")
    saved = await person.says("to be deleted")
    await rows(any_database, f"UPDATE users SET save_history = {0} WHERE id = '{person.user['id']}'")
    session = (await person.says("one", sessionId=saved["sessionId"]))["sessionId"]
    assert [message["content"] for message in vendor.requests[-1].messages] == ["to be deleted", "kept", "one"]
    token = data_of(await deletes(person, saved["sessionId"]))["undoToken"]
    await person.says("two", sessionId=session)
    assert [message["content"] for message in vendor.requests[-1].messages] == ["one", "first", "two"]
    data_of(await restores(person, token))
    await person.says("three", sessionId=session)
    assert [message["content"] for message in vendor.requests[-1].messages][:2] == ["to be deleted", "kept"]


async def test_of_an_erased_turn_nothing_is_counted_and_nothing_comes_back(person: Person) -> None:
    first = await person.says("first", clientMessageId="k-1")
    await person.says("second", sessionId=first["sessionId"])
    await delete(person, first["messageId"])
    deleted = data_of(await deletes(person, first["sessionId"]))
    assert (deleted["deletedSessions"], deleted["deletedMessages"]) == (1, 2)
    data_of(await restores(person, deleted["undoToken"]))
    assert reason_of(await person.send("first", clientMessageId="k-1")) == (404, "message_not_found")


async def test_what_is_deleted_is_not_found_by_words_and_not_exported(person: Person) -> None:
    session = (await person.says("needle one"))["sessionId"]
    other = (await person.says("needle two"))["sessionId"]

    async def holding() -> tuple[set[str], bool]:
        found = data_of(await person.get("/v1/chat/search?keyword=needle"))["items"]
        return {item["sessionId"] for item in found}, "needle one" in (await person.get("/v1/user/export")).text

    assert await holding() == ({session, other}, True)
    token = data_of(await deletes(person, session))["undoToken"]
    assert await holding() == ({other}, False)
    data_of(await restores(person, token))
    assert await holding() == ({session, other}, True)


async def test_a_list_that_a_client_holds_is_no_longer_true(person: Person) -> None:
    session = (await person.says("hello"))["sessionId"]
    paths = ("/v1/chat/sessions", f"/v1/chat/sessions/{session}", f"/v1/chat/history?sessionId={session}")

    async def again(tags: list[str]) -> list[int]:
        answers = [
            await person.get(path, {"If-None-Match": tag} if tag else None)
            for path, tag in zip(paths, tags, strict=True)
        ]
        tags[:] = [answer.headers.get("ETag", "") for answer in answers]
        return [answer.status_code for answer in answers]

    tags = [""] * len(paths)
    assert await again(tags) == [200, 200, 200]
    held = list(tags)
    assert await again(tags) == [304, 304, 304]
    token = data_of(await deletes(person, session))["undoToken"]
    assert await again(list(held)) == [200, 404, 404]
    data_of(await restores(person, token))
    assert await again(list(held)) == [200, 200, 200], "it was changed, and changed back"


# --- All of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sessionId": ""},
        {"all": "false"},
        {"all": "1"},
        {"all": "True"},
        {"all": ""},
        {"all": "true", "sessionId": "0" * 32},
        {"all": "true", "sessionId": ""},
        {"All": "true"},
        {"all": ["false", "true"]},
        {"all": ["true", "true"]},
    ],
    ids=repr,
)
async def test_a_deletion_that_does_not_say_of_what_deletes_nothing(guest: Person, query: dict[str, Any]) -> None:
    sent = await guest.says("hello")
    assert reason_of(await clears(guest, **query)) == (400, "invalid_request")
    assert not await is_gone(guest, sent)


async def test_everything_is_deleted_what_no_list_shows_too_and_nothing_of_others(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    alice, boris = await api.login("dev:alice"), await api.login("dev:boris")
    vendor.answers("one", "two", fails(500), "of boris")
    before = await alice.says("deleted before")
    single = data_of(await deletes(alice, before["sessionId"]))
    good = await alice.says("good")
    failed = (await alice.send("fails")).json()["turn"]
    of_boris = await boris.says("of boris")

    deleted = data_of(await clears(alice, all="true"))

    assert (deleted["deletedSessions"], deleted["deletedMessages"]) == (2, 4)
    assert await is_gone(alice, good)
    assert await is_gone(alice, failed)
    assert not await is_gone(boris, of_boris)
    assert data_of(await clears(alice, all="true")) == deleted, "a lost answer can be had again"
    assert data_of(await deletes(alice, good["sessionId"])) == deleted
    restored = data_of(await restores(alice, deleted["undoToken"]))
    assert restored == {"restoredSessions": 2, "restoredMessages": 4}
    assert await is_gone(alice, before), "that is another deletion's"
    assert data_of(await restores(alice, single["undoToken"])) == {"restoredSessions": 1, "restoredMessages": 2}
    anew = data_of(await clears(alice, all="true"))
    assert anew["undoToken"] != deleted["undoToken"]
    assert (anew["deletedSessions"], anew["deletedMessages"]) == (3, 6)


async def test_where_nothing_is_there_to_delete_nothing_can_be_undone(person: Person, any_database: URL) -> None:
    assert data_of(await clears(person, all="true")) == NOTHING
    session = (await person.says("hello"))["sessionId"]
    data_of(await deletes(person, session))
    assert data_of(await clears(person, all="true")) == NOTHING, "it went by another wish"
    assert len(await rows(any_database, "SELECT id FROM deletions")) == 1


# --- Undoing --------------------------------------------------------------------------------------------------------


async def test_nobody_else_and_no_other_token_undoes_anything(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    alice, mallory = await api.login("dev:alice"), await api.login("dev:mallory")
    sent = await alice.says("hello")
    token = data_of(await deletes(alice, sent["sessionId"]))["undoToken"]
    answers = [
        await restores(mallory, token),
        await restores(alice, token.upper() if token.upper() != token else "F" * 32),
        *[await restores(alice, each) for each in ("", "0" * 32, "nonsense", token + "0", "😀", sent["sessionId"])],
    ]
    assert {reason_of(answer) for answer in answers} == {(404, "undo_expired")}
    assert len({answer.text.partition('"requestId"')[0] for answer in answers}) == 1
    assert await is_gone(alice, sent)
    assert data_of(await restores(alice, token))["restoredSessions"] == 1


@pytest.mark.parametrize("body", [{}, {"undoToken": None}, {"undoToken": 5}, {"undoToken": ["x"]}, {"token": "x"}])
async def test_without_a_token_nothing_is_restored(guest: Person, body: Any) -> None:
    answer = await guest.http.post("/v1/chat/history/restore", json=body, headers=guest.bearer)
    assert reason_of(answer) == (400, "invalid_request")


async def test_once_the_time_is_over_there_is_no_way_back(person: Person, any_database: URL) -> None:
    sent = await person.says("hello")
    token = data_of(await deletes(person, sent["sessionId"]))["undoToken"]
    await age(any_database, token)
    assert reason_of(await restores(person, token)) == (404, "undo_expired")
    assert reason_of(await deletes(person, sent["sessionId"])) == (404, "session_not_found")
    assert data_of(await clears(person, all="true")) == NOTHING
    assert await is_gone(person, sent)


# --- What runs ------------------------------------------------------------------------------------------------------


async def test_what_runs_is_stopped_and_its_followers_are_told_so(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs("so far"), hangs("here too"))
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        await stream.until_text("so far")
        async with streaming(person, "again", sessionId=start["sessionId"]) as second:
            await second.until_text("here too")
            async with resuming(person, start["messageId"]) as resumed:
                deleted = data_of(await deletes(person, start["sessionId"]))
                ends = [await each.done() for each in (stream, second, resumed)]
    assert [(end["status"], end["finishReason"]) for end in ends] == [("stopped", "stopped")] * 3
    await vendor.until(lambda: vendor.busy == 0, within=1)
    assert deleted["deletedMessages"] == 4
    assert await is_gone(person, start)
    data_of(await restores(person, deleted["undoToken"]))
    assert (await person.look(start["messageId"]))["content"] == "so far"


async def test_deleting_everything_stops_whatever_runs(
    person: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    vendor.script = hangs("so far")
    streams = [streaming(person, f"hello {number}") for number in range(5)]
    opened = [await stream.__aenter__() for stream in streams]
    for each in opened:
        await each.until_text("so far")
    deleted = data_of(await clears(person, all="true"))
    for each in opened:
        assert (await each.done())["status"] == "stopped"
    for stream in streams:
        await stream.__aexit__(None, None, None)
    assert (deleted["deletedSessions"], deleted["deletedMessages"]) == (5, 10)
    assert await rows(any_database, "SELECT id FROM messages WHERE status = 'running'") == []
    assert {tuple(row) for row in await rows(any_database, "SELECT running, listed_at FROM sessions")} == {(0, None)}


async def test_sends_that_race_with_a_deletion_are_in_it_or_after_it(
    person: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    vendor.script = says("answer")
    for _ in range(3):
        session = (await person.says("first"))["sessionId"]
        sends = [asyncio.create_task(person.send(f"more {number}", sessionId=session)) for number in range(6)]
        await asyncio.sleep(0.01)
        deleted = data_of(await deletes(person, session))
        for answer in await asyncio.gather(*sends):
            assert answer.status_code in (200, 404), answer.text
        there = await rows(any_database, f"SELECT id FROM messages WHERE session_id = '{session}'")
        assert len(there) == deleted["deletedMessages"]
        assert data_of(await restores(person, deleted["undoToken"]))["restoredMessages"] == len(there)
        assert (await row_of(any_database, session))[5] == 0, "nothing runs"


async def test_deleted_on_one_instance_it_is_gone_on_the_other_at_once(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers("whole", hangs("so far"))
    here, there = await two(any_database, serve, vendor)
    sent = await here.says("hello")
    async with streaming(there, "more", sessionId=sent["sessionId"]) as stream:
        await stream.until_text("so far")
        deleted = data_of(await deletes(here, sent["sessionId"]))
        assert await is_gone(there, sent)
        assert data_of(await deletes(there, sent["sessionId"])) == deleted
        await vendor.until(lambda: vendor.busy == 0, within=3)
        assert (await stream.done())["status"] == "stopped", "nothing that is to be sent again"
    data_of(await restores(there, deleted["undoToken"]))
    assert not await is_gone(here, sent)


async def test_deleting_changes_nothing_that_was_used(person: Person, any_database: URL) -> None:
    await person.says("hello")
    used = await rows(any_database, "SELECT * FROM usage_days")
    assert used
    token = data_of(await clears(person, all="true"))["undoToken"]
    data_of(await restores(person, token))
    assert await rows(any_database, "SELECT * FROM usage_days") == used


async def test_deleting_is_limited_as_reading_is(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 3}))
    person = await api.login()
    session = (await person.says("hello"))["sessionId"]
    answers = [
        await deletes(person, session),
        await clears(person, all="true"),
        await restores(person, "0" * 32),
        await deletes(person, session),
        await clears(person, all="true"),
        await restores(person, "0" * 32),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 429, 429, 429]
