"""Sessions over HTTP: the list, one of them, its title and its pin."""

import asyncio
import base64
import hashlib
import json
import re
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.lists import SESSIONS, all_sessions, edit, look, sessions
from tests.fixtures.service import Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import stop, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs
from tests.integration.test_conventions import JSON

# --- The list -------------------------------------------------------------------------------------------------------


async def test_the_list_shows_what_a_session_is_about(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("你好\n\n  😀")
    sent = await person.says("  第一个\n问题  ")
    page = await sessions(person)
    [item] = page["items"]
    assert page == {"items": [item], "nextCursor": None, "hasMore": False}
    assert data_of(await look(person, f"{SESSIONS}/{sent['sessionId']}")) == item
    assert item.pop("createdAt") <= item.pop("updatedAt")
    assert item == {
        "sessionId": sent["sessionId"],
        "title": "第一个 问题",
        "preview": "你好 😀",
        "pinned": False,
        "messageCount": 2,
        "running": False,
    }


async def test_the_list_is_in_the_order_of_activity_with_pinned_ones_first(person: Person) -> None:
    ids = [(await person.says(f"question {number}"))["sessionId"] for number in range(5)]
    assert [item["sessionId"] for item in (await sessions(person))["items"]] == ids[::-1]
    await edit(person, ids[0], pinned=True)
    await person.says("again", sessionId=ids[1])
    expected = [ids[0], ids[1], ids[4], ids[3], ids[2]]
    assert [item["sessionId"] for item in (await sessions(person))["items"]] == expected
    for limit in (1, 2, 4, 5, 100):
        assert [item["sessionId"] for item in await all_sessions(person, limit=limit)] == expected


async def test_a_session_is_listed_while_it_runs_and_not_when_nothing_came_of_it(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(hangs("so far"), fails(500), fails(500), fails(500))
    async with streaming(person, "a question") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        [item] = (await sessions(person))["items"]
        assert (item["running"], item["messageCount"], item["preview"]) == (True, 2, "a question")
        await stop(person, message_id)
    [item] = (await sessions(person))["items"]
    assert item["running"] is False
    failed = (await person.send("fails")).json()["turn"]
    assert [one["sessionId"] for one in (await sessions(person))["items"]] == [item["sessionId"]]
    assert data_of(await look(person, f"{SESSIONS}/{failed['sessionId']}"))["messageCount"] == 2


async def test_a_keyword_finds_titles_with_exactly_that_in_them(person: Person) -> None:
    titles = ["100%", "a_b", "it's", 'say "x"', "smile 😀", "今天天气", "Abc"]
    for title in titles:
        await person.says(title)
    for keyword, found in (
        *(("%", ["100%"]), ("_", ["a_b"]), ("'", ["it's"]), ('"', ['say "x"']), ("😀", ["smile 😀"])),
        *(("天", ["今天天气"]), ("b", ["Abc", "a_b"]), ("B", []), ("a_", ["a_b"]), ("%%", []), ("x" * 50, [])),
    ):
        listed = await all_sessions(person, keyword=keyword, limit=1)
        assert [item["title"] for item in listed] == found, keyword


@pytest.mark.parametrize("limit", ["0", "101", "-1", "", "ten", "1.5", "null", "9" * 30])
async def test_a_limit_is_a_number_from_1_to_100(quick_api: Api, limit: str) -> None:
    person = await quick_api.login()
    answer = await look(person, SESSIONS, limit=limit)
    assert reason_of(answer) == (400, "invalid_request")
    assert answer.json()["message"].endswith("limit")


async def test_a_keyword_has_1_to_50_characters_that_a_title_can_have(quick_api: Api) -> None:
    person = await quick_api.login()
    for keyword, reason in (("", "keyword_empty"), ("  ", "keyword_empty"), ("x" * 51, "keyword_too_long")):
        assert reason_of(await look(person, SESSIONS, keyword=keyword)) == (400, reason)
    assert (await look(person, SESSIONS, keyword="😀" * 50)).status_code == 200
    assert reason_of(await look(person, SESSIONS, keyword="a\x00")) == (400, "content_invalid")


def forged(values: object, *about: str) -> str:
    """What whoever has read the source can make for himself."""
    payload = base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")
    return f"{payload}.{hashlib.sha256(json.dumps([payload, *about]).encode()).hexdigest()[:16]}"


async def test_a_cursor_is_good_for_its_own_list_alone(quick_api: Api) -> None:
    alice, bob = await quick_api.login("dev:alice-c"), await quick_api.login("dev:bob-c")
    for person in (alice, bob):
        for number in range(3):
            await person.says(f"question {number}")
    cursor = (await sessions(alice, limit=1))["nextCursor"]
    named = (await sessions(alice, limit=1, keyword="question"))["nextCursor"]
    assert (await sessions(alice, cursor=cursor))["items"] == (await sessions(alice))["items"][1:]
    assert reason_of(await look(bob, SESSIONS, cursor=cursor)) == (400, "bad_cursor")
    assert reason_of(await look(alice, SESSIONS, cursor=cursor, keyword="question")) == (400, "bad_cursor")
    assert reason_of(await look(alice, SESSIONS, cursor=named)) == (400, "bad_cursor")
    for damaged in ("", "null", "x", cursor[:-1], cursor[1:], cursor + "0", "😀", "a" * 5000, "." + cursor):
        assert reason_of(await look(alice, SESSIONS, cursor=damaged)) == (400, "bad_cursor"), damaged


async def test_a_forged_cursor_shows_nobody_elses_and_breaks_nothing(quick_api: Api) -> None:
    alice, mallory = await quick_api.login("dev:alice-f"), await quick_api.login("dev:mallory-f")
    theirs = await alice.says("a secret")
    about = ("sessions", mallory.user["id"], "")
    top = [True, "9999-12-31T23:59:59.999999+00:00", theirs["sessionId"]]
    assert (await sessions(mallory, cursor=forged(top, *about)))["items"] == []
    nonsense: list[Any] = [
        None, 5, {}, [], top[:2], [*top, 1], [1, *top[1:]], [True, 5, "x"], [True, "now", top[2]], [*top[:2], "'; --"],
        [True, "2026-01-01T00:00:00", top[2]], [True, "0001-01-01T00:00:00+14:00", top[2]], [*top[:2], None],
    ]  # fmt: skip
    for values in nonsense:
        assert reason_of(await look(mallory, SESSIONS, cursor=forged(values, *about))) == (400, "bad_cursor"), values
    earliest = [False, "0001-01-01T00:00:00+00:00", top[2]]
    assert (await sessions(mallory, cursor=forged(earliest, *about)))["items"] == []


# --- Titles and pins ------------------------------------------------------------------------------------------------


async def test_a_title_and_a_pin_are_kept(person: Person) -> None:
    session = (await person.says("hello"))["sessionId"]
    before = data_of(await look(person, f"{SESSIONS}/{session}"))
    named = data_of(await edit(person, session, title='  \'%_\\ "我的" 😀 '))
    assert named == {**before, "title": '\'%_\\ "我的" 😀'}
    assert data_of(await edit(person, session, pinned=True, title=None)) == {**named, "pinned": True}
    assert data_of(await edit(person, session)) == {**named, "pinned": True}
    assert data_of(await edit(person, session, pinned=False, more="ignored")) == named
    await person.says("more", sessionId=session)
    assert data_of(await look(person, f"{SESSIONS}/{session}"))["title"] == named["title"]
    assert data_of(await edit(person, session, title="字" * 60))["title"] == "字" * 60


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"title": ""}', "title_empty"),
        (b'{"title": " \\t\\n\\u3000"}', "title_empty"),
        (json.dumps({"title": "x" * 61}).encode(), "title_too_long"),
        (json.dumps({"title": "😀" * 61}).encode(), "title_too_long"),
        (b'{"title": "a\\ud800"}', "content_invalid"),
        (b'{"title": "a\\u0000"}', "content_invalid"),
        (b'{"title": 5}', "invalid_request"),
        (b'{"title": ["x"]}', "invalid_request"),
        (b'{"title": true}', "invalid_request"),
        (b'{"pinned": "true"}', "invalid_request"),
        (b'{"pinned": 1}', "invalid_request"),
        (b'{"pinned": 0, "title": "x"}', "invalid_request"),
        (b"{", "json_invalid"),
        (b"[]", "json_invalid"),
        (b"", "json_invalid"),
    ],
)
async def test_what_is_no_title_and_no_pin_changes_nothing(quick_api: Api, body: bytes, expected: str) -> None:
    person = await quick_api.login()
    session = (await person.says("hello"))["sessionId"]
    before = data_of(await look(person, f"{SESSIONS}/{session}"))
    answer = await person.http.put(f"{SESSIONS}/{session}", content=body, headers={**JSON, **person.bearer})
    assert reason_of(answer) == (400, expected)
    assert data_of(await look(person, f"{SESSIONS}/{session}")) == before


async def test_what_is_not_ones_own_never_existed(any_database: URL, serve: Serve) -> None:
    api = await serve(settings_for(any_database))
    alice, mallory = await api.login("dev:alice"), await api.login("dev:mallory")
    sent = await alice.says("hello")
    answers = []
    for session_id in (sent["sessionId"], "0" * 32, sent["messageId"], "nonsense", "%F0%9F%98%80", "%00"):
        answers.append(await look(mallory, f"{SESSIONS}/{session_id}"))
        answers += [await edit(mallory, session_id, **body) for body in ({}, {"title": "x"}, {"pinned": True})]
    assert {reason_of(answer) for answer in answers} == {(404, "session_not_found")}
    assert len({re.sub('"requestId":"[^"]+"', "", answer.text) for answer in answers}) == 1
    assert data_of(await look(alice, f"{SESSIONS}/{sent['sessionId']}"))["title"] == "hello"
    assert (await sessions(mallory))["items"] == []


async def test_looks_and_changes_are_limited(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 4}))
    person = await api.login()
    session = (await person.says("hello"))["sessionId"]
    answers = [
        await look(person, SESSIONS),
        await look(person, f"{SESSIONS}/{session}"),
        await edit(person, session, pinned=True),
        await look(person, "/v1/chat/history", sessionId=session),
        await look(person, SESSIONS),
        await look(person, f"{SESSIONS}/{session}"),
        await edit(person, session, pinned=False),
        await look(person, "/v1/chat/history", sessionId=session),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 4
    assert {reason_of(answer) for answer in answers[4:]} == {(429, "too_many_reads")}


async def test_renames_at_once_leave_one_of_the_names(person: Person) -> None:
    session = (await person.says("hello"))["sessionId"]
    answers = await asyncio.gather(*(edit(person, session, title=f"title {number}") for number in range(8)))
    assert {data_of(answer)["title"] for answer in answers} == {f"title {number}" for number in range(8)}
    assert data_of(await look(person, f"{SESSIONS}/{session}"))["title"].startswith("title ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", SESSIONS),
        ("GET", f"{SESSIONS}/{'0' * 32}"),
        ("PUT", f"{SESSIONS}/{'0' * 32}"),
        ("GET", "/v1/chat/history"),
    ],
)
async def test_the_conventions_hold(quick_api: Api, method: str, path: str) -> None:
    person = await quick_api.login()
    assert reason_of(await quick_api.http.request(method, path)) == (401, "token_missing")
    wrong = await quick_api.http.request("PATCH", path, headers=person.bearer)
    assert reason_of(wrong) == (405, "method_not_allowed")
    assert method in wrong.headers["Allow"]
    assert reason_of(await quick_api.http.request(method, path + "/", headers=person.bearer)) == (404, "not_found")
