"""The user's own document, line by line, over a real socket, on SQLite and on a MySQL-family server."""

import re
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.domain.audio import AudioKind
from tests.fixtures.service import Api, Serve, data_of, reason_of, settings_for
from tests.fixtures.speech import recording
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import echoes, fails, hangs
from tests.fixtures.wechat import LoopbackWeChat

WHOLE_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def llm(vendor: LoopbackVendor, **more: Any) -> dict[str, Any]:
    """Settings for a loopback vendor that is asked once a reply: whatever it does is what the turn comes to."""
    return {"base_url": vendor.base_url, "api_key": "sk-loopback-key", "model": "loopback-1", "max_calls": 1, **more}


def wechat_settings(wechat: LoopbackWeChat) -> dict[str, Any]:
    return {"appid": wechat.appid, "secret": wechat.secret, "base_url": wechat.base_url}


async def test_1_1_login_answers_token_and_user(any_database: URL, serve: Serve, wechat: LoopbackWeChat) -> None:
    api = await serve(settings_for(any_database, wechat=wechat_settings(wechat)))
    body = {"code": "alice#1", "userInfo": {"nickName": "小爱 😀", "avatarUrl": "https://example.com/a.png"}}
    answer = await api.http.post("/v1/auth/wechat-login", json=body)
    assert answer.headers["Content-Type"] == "application/json"
    data = data_of(answer)
    assert set(data) == {"token", "expiresIn", "userInfo"}
    assert data["expiresIn"] == 604_800
    assert data["token"].count(".") == 2
    user = data["userInfo"]
    assert set(user) == {"id", "openid", "nickName", "avatar", "createdAt"}
    assert user["openid"] == wechat.openid_of("alice")
    assert (user["nickName"], user["avatar"]) == ("小爱 😀", "https://example.com/a.png")
    assert WHOLE_SECONDS.fullmatch(user["createdAt"])
    again = await api.http.post("/v1/auth/wechat-login", json={"code": "alice#2"})
    assert data_of(again)["userInfo"] == user, "the same person, with what is known of her"


async def test_1_2_logout_ends_the_token(api: Api) -> None:
    person = await api.login()
    answer = await person.logout()
    assert answer.json() == {"code": 200, "message": "已成功退出登录", "data": None}
    assert reason_of(await person.get("/v1/user/info")) == (401, "login_ended")
    assert reason_of(await person.logout()) == (401, "login_ended")


async def test_1_2_logout_of_all_devices(api: Api) -> None:
    phone, tablet, stranger = await api.login("dev:a"), await api.login("dev:a"), await api.login("dev:b")
    assert (await phone.logout(all="true")).status_code == 200
    assert reason_of(await tablet.get("/v1/user/info")) == (401, "login_ended")
    assert (await stranger.get("/v1/user/info")).status_code == 200


async def test_1_3_user_info_with_default_settings(api: Api) -> None:
    person = await api.login("dev:alice", userInfo={"nickName": "爱丽丝"})
    data = data_of(await person.get("/v1/user/info"))
    assert data == {
        **person.user,
        "settings": {"isDarkMode": False, "autoRead": False, "saveHistory": True},
    }
    assert data["nickName"] == "爱丽丝"


async def test_2_1_message_and_reply(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    data = await person.says("你好，世界 😀")
    assert set(data) == {
        "sessionId",
        "messageId",
        "userMessageId",
        "reply",
        "status",
        "finishReason",
        "model",
        "usage",
        "aiGenerated",
        "replayed",
    }
    assert set(data["reply"]) == {"content", "time"}
    assert data["reply"]["content"]
    assert WHOLE_SECONDS.fullmatch(data["reply"]["time"])
    assert (data["status"], data["finishReason"], data["aiGenerated"], data["replayed"]) == (
        "complete",
        "stop",
        True,
        False,
    )
    assert set(data["usage"]) == {"inputTokens", "outputTokens"}


async def test_2_1_a_session_carries_its_context(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    """Three turns in one session: each prompt holds what was said before, and nothing of another session."""
    vendor.script = echoes(lambda messages: f"I saw {len(messages)}: {messages[0]['content']}")
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    first = await person.says("one")
    second = await person.says("two", sessionId=first["sessionId"])
    elsewhere = await person.says("apart", sessionId="")
    third = await person.says("three", sessionId=first["sessionId"])
    assert second["reply"]["content"] == "I saw 3: one"
    assert elsewhere["reply"]["content"] == "I saw 1: apart"
    assert [message["content"] for message in vendor.requests[-1].messages] == [
        "one",
        "I saw 1: one",
        "two",
        "I saw 3: one",
        "three",
    ]
    assert third["sessionId"] == first["sessionId"] != elsewhere["sessionId"]


@pytest.mark.parametrize("empty", [None, ""])
async def test_2_1_an_empty_session_id_opens_a_session(quick_api: Api, empty: str | None) -> None:
    person = await quick_api.login()
    first, second = await person.says("a", sessionId=empty), await person.says("b", sessionId=empty)
    assert first["sessionId"] != second["sessionId"]


@pytest.mark.parametrize("kind", [AudioKind.MP3, AudioKind.WAV, AudioKind.M4A])
async def test_3_1_speech_becomes_text(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, kind: AudioKind
) -> None:
    """The document's formats, as recordings of real speech; its one field, and the two that the contract adds."""
    vendor.script = fails(200, {"text": "识别出的文本内容"})
    asr = {"engine": "whisper_api", "base_url": vendor.base_url, "api_key": "sk-loopback-key", "model": "whisper-1"}
    person = await (await serve(settings_for(any_database, asr=asr))).login()
    answer = await person.speaks(recording(kind), f"recording.{kind}")
    assert answer.headers["Content-Type"] == "application/json"
    data = data_of(answer)
    assert set(data) == {"text", "language", "duration"}
    assert data["text"] == "识别出的文本内容"
    assert reason_of(await person.http.post("/v1/ai/speech-to-text")) == (401, "token_missing")


async def test_4_every_documented_code(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, wechat: LoopbackWeChat
) -> None:
    """200, 400, 401, 403, 404, 429 and 500 are all produced over HTTP, each with the code as its status."""
    limits = {"sends_per_minute": 2}
    api = await serve(settings_for(any_database, llm=llm(vendor), wechat=wechat_settings(wechat), limits=limits))
    person = await api.login("alice")
    wechat.answers["frozen"] = {"errcode": 50002, "errmsg": "user limited rid: 1234abcd-1234"}
    vendor.answers(fails(500))
    seen = {
        (await person.get("/v1/user/info")).status_code,
        reason_of(await person.send("   ")),
        reason_of(await api.http.get("/v1/user/info")),
        reason_of(await api.http.post("/v1/auth/wechat-login", json={"code": "frozen"})),
        reason_of(await person.send("hello", sessionId="0" * 32)),
        reason_of(await person.send("hello")),
        reason_of(await person.send("hello")),
    }
    assert seen == {
        200,
        (400, "content_empty"),
        (401, "token_missing"),
        (403, "wechat_user_blocked"),
        (404, "session_not_found"),
        (500, "llm_unavailable"),
        (429, "too_many_sends"),
    }


async def test_5_a_retry_does_not_double(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    """The document advises to retry failed sends: with the same key, a retry is the same message."""
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    first = await person.says("hello", clientMessageId="retry-1")
    again = await person.says("hello", clientMessageId="retry-1")
    by_header = data_of(await person.send("hello", headers={"Idempotency-Key": "retry-1"}))
    assert again == {**first, "replayed": True} == by_header
    assert len(vendor.requests) == 1


async def test_5_caching_by_etag(api: Api) -> None:
    person = await api.login("dev:cache", userInfo={"nickName": "甲"})
    first = await person.get("/v1/user/info")
    assert first.headers["Cache-Control"] == "private, no-cache"
    held = await person.get("/v1/user/info", {"If-None-Match": first.headers["ETag"]})
    assert (held.status_code, held.content) == (304, b"")
    await api.login("dev:cache", userInfo={"nickName": "乙"})
    changed = await person.get("/v1/user/info", {"If-None-Match": first.headers["ETag"]})
    assert data_of(changed)["nickName"] == "乙"


async def test_a_reply_that_takes_long_is_handed_over(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    """After `reply_wait` the answer is `running` with the text so far, and the reply goes on under its id."""
    vendor.answers(hangs("so far"))
    api = await serve(settings_for(any_database, llm=llm(vendor, deadline=2.5), http={"reply_wait": 1.0}))
    person = await api.login()
    data = await person.says("slow", clientMessageId="slow-1")
    assert (data["status"], data["finishReason"], data["reply"]["content"]) == ("running", None, "so far")
    shown = await person.look(data["messageId"])
    assert (shown["status"], shown["content"]) == ("running", "so far")
    failed = await person.send("slow", clientMessageId="slow-1")
    while failed.status_code == 200:
        failed = await person.send("slow", clientMessageId="slow-1")
    assert reason_of(failed) == (500, "llm_timeout")
    assert failed.json()["turn"]["messageId"] == data["messageId"]
    shown = await person.look(data["messageId"])
    assert (shown["status"], shown["finishReason"], shown["reason"]) == ("failed", "error", "llm_timeout")
    assert shown["content"] == "so far"
    assert len(vendor.requests) == 1
