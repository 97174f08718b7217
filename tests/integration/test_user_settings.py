"""Profile and settings over HTTP: partial changes, strict types, and at once on every instance."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.service import Answer, Api, Person, Serve, data_of, reason_of, settings_for

DEFAULTS = {"isDarkMode": False, "autoRead": False, "saveHistory": True}
AVATAR = "https://thirdwx.qlogo.cn/mmopen/132"


async def put(person: Person, what: str, body: object) -> Answer:
    """Send JSON as a client may write it: with `\\ud800`, where a text has that."""
    headers = {**person.bearer, "Content-Type": "application/json"}
    return await person.http.put(f"/v1/user/{what}", content=json.dumps(body).encode(), headers=headers)


async def shown(person: Person, what: str) -> Any:
    return data_of(await person.get(f"/v1/user/{what}"))


# --- Profile --------------------------------------------------------------------------------------------------------


async def test_name_and_avatar_change_one_by_one(api: Api) -> None:
    person = await api.login()
    changed = data_of(await put(person, "info", {"nickName": "  小明👨‍👩‍👧 "}))
    assert (changed["nickName"], changed["avatar"]) == ("小明👨‍👩‍👧", "")
    changed = data_of(await put(person, "info", {"avatarUrl": AVATAR, "nickName": None}))
    assert (changed["nickName"], changed["avatar"]) == ("小明👨‍👩‍👧", AVATAR)
    assert await shown(person, "info") == changed
    assert data_of(await put(person, "info", {"unknown": 5})) == changed, "nothing was named that we know"


async def test_a_later_login_with_the_placeholder_takes_nothing_away(api: Api) -> None:
    person = await api.login("dev:anna")
    await put(person, "info", {"nickName": "安娜", "avatarUrl": AVATAR})
    again = await api.login("dev:anna", userInfo={"nickName": "微信用户", "avatarUrl": ""})
    assert (again.user["nickName"], again.user["avatar"]) == ("安娜", AVATAR)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"nickName": ""}, "nickname_invalid"),
        ({"nickName": " \n\u3000"}, "nickname_invalid"),
        ({"nickName": "😀" * 33}, "nickname_invalid"),
        ({"nickName": "a\x00b"}, "content_invalid"),
        ({"nickName": "a\ud800b"}, "content_invalid"),
        ({"nickName": 5}, "invalid_request"),
        ({"nickName": ["x"]}, "invalid_request"),
        ({"avatarUrl": ""}, "avatar_invalid"),
        ({"avatarUrl": "http://plain.example.com/a.png"}, "avatar_invalid"),
        ({"avatarUrl": "https:///a.png"}, "avatar_invalid"),
        ({"avatarUrl": "https://a b"}, "avatar_invalid"),
        ({"avatarUrl": "javascript:alert(1)"}, "avatar_invalid"),
        ({"avatarUrl": "https://a/" + "x" * 503}, "avatar_invalid"),
        ({"avatarUrl": "https://a/\ud800"}, "content_invalid"),
        ({"avatarUrl": "https://a/\n"}, "avatar_invalid"),
        ({"avatarUrl": True}, "invalid_request"),
        ([], "json_invalid"),
        (None, "json_invalid"),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_bad_profile_is_400_and_changes_nothing(quick_api: Api, body: object, reason: str) -> None:
    person = await quick_api.login("dev:bad-profile", userInfo={"nickName": "unharmed"})
    before = await shown(person, "info")
    together = body | {"nickName": "new", **body} if isinstance(body, dict) else body
    assert reason_of(await put(person, "info", together)) == (400, reason)
    assert await shown(person, "info") == before


async def test_the_longest_name_and_avatar_are_taken(quick_api: Api) -> None:
    person = await quick_api.login("dev:long")
    longest = {"nickName": "😀" * 32, "avatarUrl": "https://a/" + "x" * 502}
    changed = data_of(await put(person, "info", longest))
    assert (changed["nickName"], changed["avatar"]) == (longest["nickName"], longest["avatarUrl"])


# --- Settings -------------------------------------------------------------------------------------------------------


async def test_settings_begin_with_their_defaults_and_change_one_by_one(api: Api) -> None:
    person = await api.login()
    assert await shown(person, "settings") == DEFAULTS
    assert data_of(await put(person, "settings", {})) == DEFAULTS
    assert data_of(await put(person, "settings", {"isDarkMode": True})) == {**DEFAULTS, "isDarkMode": True}
    wish = {"autoRead": True, "saveHistory": False, "fontSize": "huge"}
    everything = {"isDarkMode": True, "autoRead": True, "saveHistory": False}
    assert data_of(await put(person, "settings", wish)) == everything
    assert await shown(person, "settings") == (await shown(person, "info"))["settings"] == everything
    assert data_of(await put(person, "settings", DEFAULTS)) == DEFAULTS


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("value", [0, 1, "true", "false", "", None, [], {}, 1.0], ids=repr)
async def test_a_setting_is_a_boolean_and_nothing_that_looks_like_one(quick_api: Api, name: str, value: object) -> None:
    person = await quick_api.login("dev:strict")
    answer = await put(person, "settings", {"isDarkMode": True, name: value})
    assert reason_of(answer) == (400, "invalid_request")
    assert answer.json()["message"] == f"请求参数错误：{name}"
    assert await shown(person, "settings") == DEFAULTS, "not even the part that was right"


@pytest.mark.parametrize("body", [[], None, True, "x"], ids=repr)
async def test_settings_come_in_an_object(quick_api: Api, body: object) -> None:
    person = await quick_api.login("dev:strict")
    assert reason_of(await put(person, "settings", body)) == (400, "json_invalid")


async def test_changes_of_different_fields_at_once_all_survive(api: Api) -> None:
    person = await api.login()
    for _ in range(5):
        await put(person, "settings", DEFAULTS)
        changes: list[tuple[str, object]] = [
            ("settings", {"isDarkMode": True}),
            ("settings", {"autoRead": True}),
            ("settings", {"saveHistory": False}),
            ("info", {"nickName": "安娜"}),
            ("info", {"avatarUrl": AVATAR}),
        ]
        answers = await asyncio.gather(*(put(person, what, body) for what, body in changes))
        assert {answer.status_code for answer in answers} == {200}
        now = await shown(person, "info")
        assert now["settings"] == {"isDarkMode": True, "autoRead": True, "saveHistory": False}
        assert (now["nickName"], now["avatar"]) == ("安娜", AVATAR)


async def test_a_change_holds_on_every_instance_from_the_next_request_on(any_database: URL, serve: Serve) -> None:
    here, there = [await serve(settings_for(any_database)) for _ in range(2)]
    person = await here.login()
    elsewhere = Person(there.http, person.token, person.user)
    for value in (True, False):
        await put(person, "settings", {"isDarkMode": value})
        assert (await shown(elsewhere, "settings"))["isDarkMode"] is value


async def test_what_did_not_change_is_304_and_what_did_is_not(api: Api) -> None:
    person = await api.login()
    for what, change in (("settings", {"autoRead": True}), ("info", {"nickName": "安娜"})):
        first = await person.get(f"/v1/user/{what}")
        held = {"If-None-Match": first.headers["ETag"]}
        assert first.headers["Cache-Control"] == "private, no-cache"
        assert (await person.get(f"/v1/user/{what}", held)).status_code == 304
        changed = await put(person, what, change)
        assert changed.headers["Cache-Control"] == "no-store"
        assert (await person.get(f"/v1/user/{what}", held)).status_code == 200


async def test_changes_count_as_reads_and_belong_to_who_is_logged_in(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 2}))
    person = await api.login()
    answers = [await put(person, "settings", {"autoRead": True}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert reason_of(await put(person, "info", {"nickName": "x"})) == (429, "too_many_reads")
    assert int(answers[-1].headers["Retry-After"]) > 0
    for what in ("info", "settings"):
        anonymous = await api.http.put(f"/v1/user/{what}", json={})
        assert reason_of(anonymous) == (401, "token_missing")
