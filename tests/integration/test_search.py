"""Searching over HTTP, as a mini-program would."""

from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.logs import RUN
from tests.fixtures.service import Answer, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import delete, regenerate
from tests.fixtures.vendor import LoopbackVendor


async def ask(person: Person, **query: Any) -> Answer:
    return await person.http.get("/v1/chat/search", params=query, headers=person.bearer)


async def search(person: Person, keyword: str, **query: Any) -> Any:
    return data_of(await ask(person, keyword=keyword, **query))


async def test_a_word_is_found_in_questions_and_replies_newest_first(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("杭州明天有雨，带伞", "伞在门口")
    first = await person.says("明天去杭州要带伞吗？\n还有别的吗")
    second = await person.says("我的东西在哪里", sessionId=first["sessionId"])
    found = await search(person, "伞")
    shared = {"sessionId": first["sessionId"], "title": "明天去杭州要带伞吗？ 还有别的吗"}
    assert found == {
        "items": [
            {**shared, "messageId": second["messageId"], "snippet": "伞在门口", "time": second["reply"]["time"]},
            {
                **shared,
                "messageId": first["messageId"],
                "snippet": "杭州明天有雨，带伞",
                "time": first["reply"]["time"],
            },
            {
                **shared,
                "messageId": first["userMessageId"],
                "snippet": "明天去杭州要带伞吗？ 还有别的吗",
                "time": found["items"][2]["time"],
            },
        ],
        "nextCursor": None,
        "hasMore": False,
    }


async def test_pages_follow_each_other_while_more_is_said(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(*["好"] * 9)
    session = (await person.says("苹果 0"))["sessionId"]
    for number in range(1, 5):
        await person.says(f"苹果 {number}", sessionId=session)
    seen, query = [], dict[str, str]()
    while True:
        page = await search(person, "苹果", limit=2, **query)
        seen += [item["snippet"] for item in page["items"]]
        assert page["hasMore"] == (page["nextCursor"] is not None)
        if not page["hasMore"]:
            break
        await person.says("苹果, later", sessionId=session)
        query = {"cursor": page["nextCursor"]}
    assert seen == [f"苹果 {number}" for number in (4, 3, 2, 1, 0)]


async def test_what_is_gone_or_not_shown_is_not_found(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("橙子一", "橙子二", "橙子三")
    first = await person.says("hello")
    second = await regenerate(person, first["messageId"])
    assert [item["messageId"] for item in (await search(person, "橙子"))["items"]] == [second["messageId"]]
    await person.says("again", sessionId=first["sessionId"])
    await delete(person, first["messageId"])
    assert [item["snippet"] for item in (await search(person, "橙子"))["items"]] == ["橙子三"]


async def test_nobody_finds_what_others_said(person: Person, vendor: LoopbackVendor, serve: Serve) -> None:
    vendor.answers("西瓜")
    await person.says("西瓜")
    assert len((await search(person, "西瓜"))["items"]) == 2
    answer = await person.http.post("/v1/auth/wechat-login", json={"code": "dev:other"})
    stranger = Person(person.http, data_of(answer)["token"], data_of(answer)["userInfo"])
    assert await search(stranger, "西瓜") == {"items": [], "nextCursor": None, "hasMore": False}


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "invalid_request"),
        ({"keyword": ""}, "keyword_empty"),
        ({"keyword": " \n\u3000"}, "keyword_empty"),
        ({"keyword": "字" * 51}, "keyword_too_long"),
        ({"keyword": "😀" * 51}, "keyword_too_long"),
        ({"keyword": "a\x00b"}, "content_invalid"),
        ({"keyword": "a\rb"}, "content_invalid"),
        *[
            ({"keyword": "x", "limit": limit}, "invalid_request")
            for limit in ("0", "101", "-1", "ten", "", "1e1", "1.5")
        ],
        *[
            ({"keyword": "x", "cursor": cursor}, "bad_cursor")
            for cursor in ("x", "0" * 32, "é" * 20, "a" * 513, "=" * 16, "A" * 60, "../../etc/passwd?", "\u4e00" * 30)
        ],
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_search_that_is_none_is_refused(guest: Person, query: dict[str, str], reason: str) -> None:
    assert reason_of(await ask(guest, **query)) == (400, reason)


@pytest.mark.parametrize("keyword", ["字" * 50, " x ", "😀" * 50, "%", "_", "\\", "'", '"', "%' OR 1=1 -- ", "a\tb"])
async def test_any_other_keyword_finds_just_what_it_is(guest: Person, keyword: str) -> None:
    sent = await guest.says(f"before {keyword} after")
    found = [item["messageId"] for item in (await search(guest, keyword, limit=100))["items"]]
    assert sent["userMessageId"] in found


async def test_a_broken_character_is_no_error(guest: Person) -> None:
    answer = await guest.http.get("/v1/chat/search?keyword=%ED%A0%80%ff", headers=guest.bearer)
    assert data_of(answer)["items"] == []


async def test_a_cursor_is_good_for_its_user_and_its_keyword_alone(any_database: URL, serve: Serve) -> None:
    api = await serve(settings_for(any_database))
    anna, bert = await api.login("dev:anna"), await api.login("dev:bert")
    for person in (anna, bert):
        for word in ("梨", "李"):
            await person.says(word)
            await person.says(word)
    cursor = (await search(anna, "梨", limit=1))["nextCursor"]
    assert len((await search(anna, "梨", limit=1, cursor=cursor))["items"]) == 1
    assert len((await search(anna, " 梨 ", limit=1, cursor=cursor))["items"]) == 1, "it is trimmed"
    assert reason_of(await ask(anna, keyword="李", cursor=cursor)) == (400, "bad_cursor")
    assert reason_of(await ask(bert, keyword="梨", cursor=cursor)) == (400, "bad_cursor")
    for spoilt in ("", cursor[:-1], cursor + "a", "a" + cursor, cursor.upper(), cursor.replace(".", "")):
        assert reason_of(await ask(anna, keyword="梨", cursor=spoilt)) == (400, "bad_cursor")


async def test_searches_count_as_reads_and_need_a_login(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 2}))
    person = await api.login()
    for _ in range(2):
        await search(person, "x")
    assert reason_of(await ask(person, keyword="x")) == (429, "too_many_reads")
    assert (await api.http.get("/v1/chat/search?keyword=x")).status_code == 401


async def test_what_is_searched_for_is_not_logged(guest: Person) -> None:
    RUN.keep_private(keyword := "只有我知道的搜索词-9d1c")
    await search(guest, keyword)
    assert not RUN.found()
