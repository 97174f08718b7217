"""The client of docs/client.md, taken out of the page and run in Node against the real service.

Every chunk it is given is a single byte, unless a test says otherwise. Whatever happens on the way, what it has put
together at the end is what the service holds.
"""

import asyncio
import base64
import random
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.miniprogram import CLIENT, MiniProgram, Started
from tests.fixtures.service import ROOT, Api, Serve, data_of, settings_for
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Call, event, fails, hangs, piece, says, sends, stream_of

CODE = "dev:somebody"  # what the mini-program logs in with
SAID = ("你好，", "世界 😀\n", 'a "b" \\ \u2028', "é\t", "𠮷 ok")
START = ["POST /auth/wechat-login", "POST /chat/message/stream"]


@pytest.fixture
async def api(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    """The service, with the loopback vendor behind it."""
    return await served(sqlite_url, serve, vendor)


async def served(url: URL, serve: Serve, vendor: LoopbackVendor, **more: dict[str, Any]) -> Api:
    llm = {"base_url": vendor.base_url, "api_key": "sk-loopback-key", "model": "loopback-1"}
    api: Api = await serve(settings_for(url, llm=llm, **more))
    return api


def thinks(text: str) -> bytes:
    return event(piece(choices=[{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}]))


async def held(api: Api, message_id: str) -> dict[str, Any]:
    """Return the reply as the service holds it, once it is over."""
    person = await api.login(CODE)
    return dict(data_of(await person.get(f"/v1/chat/message/{message_id}?waitSeconds=25")))


async def assert_true(api: Api, phone: MiniProgram, status: str = "complete", name: str = "reply") -> dict[str, Any]:
    """Make sure that the reply is over as it should be, and that the page shows what the service holds."""
    shown = await phone.until_over(name)
    kept = await held(api, shown["messageId"])
    assert (shown["status"], shown["text"]) == (kept["status"], kept["content"])
    assert shown["status"] == status, shown["error"]
    return shown


@pytest.mark.parametrize(
    "cut", [{"cut": "bytes"}, {"cut": "whole"}, *({"cut": "random", "seed": seed} for seed in (1, 2, 3))], ids=str
)
async def test_a_whole_stream(api: Api, vendor: LoopbackVendor, mini_program: Started, cut: dict[str, Any]) -> None:
    vendor.answers(says(*SAID))
    phone = await mini_program(api.base_url, **cut)
    await phone.send("你好")
    shown = await assert_true(api, phone)
    assert shown["text"] == "".join(SAID)
    assert (shown["finishReason"], shown["error"]) == ("stop", None)
    assert phone.requests == START


async def test_text_is_shown_while_the_vendor_still_speaks(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    vendor.answers(says("one ", gates[0], "two ", gates[1], "three"))
    phone = await mini_program(api.base_url)
    await phone.send("count")
    assert (await phone.until_shown("one "))["status"] == "running"
    gates[0].set()
    await phone.until_shown("one two ")
    gates[1].set()
    assert (await assert_true(api, phone))["text"] == "one two three"
    assert phone.requests == START


async def test_a_conversation_stays_in_its_session(api: Api, vendor: LoopbackVendor, mini_program: Started) -> None:
    vendor.answers("first answer", "second answer")
    phone = await mini_program(api.base_url)
    await phone.send("first", "one")
    first = await assert_true(api, phone, name="one")
    await phone.send("second", "two", sessionId=first["sessionId"])
    second = await assert_true(api, phone, name="two")
    assert second["sessionId"] == first["sessionId"]
    assert [message["content"] for message in vendor.requests[-1].messages] == ["first", "first answer", "second"]
    assert len(phone.keys) == 2, "each message has a key of its own"


async def test_a_connection_cut_in_the_middle_is_resumed(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gate = asyncio.Event()
    vendor.answers(says("第一", "第二", gate, "第三"))
    phone = await mini_program(api.base_url)
    await phone.send("count")
    await phone.until_shown("第一第二")
    await phone.do("cut")
    await phone.until_told("request", 3)
    gate.set()
    assert (await assert_true(api, phone))["text"] == "第一第二第三"
    assert phone.requests == [*START, "GET /chat/message/{id}/stream?after=2"]
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("device", [{}, {"freezes": True}], ids=["interrupted", "frozen"])
async def test_a_reply_that_ended_in_the_background_is_there_on_return(
    api: Api, vendor: LoopbackVendor, mini_program: Started, device: dict[str, Any]
) -> None:
    """Whether WeChat fails what is open, or leaves it to itself without a word."""
    gate = asyncio.Event()
    vendor.answers(says("before ", gate, "while away"))
    phone = await mini_program(api.base_url, **device)
    await phone.send("wait for me")
    message_id = (await phone.until_shown("before "))["messageId"]
    await phone.do("hide")
    await phone.until_told("hidden")
    gate.set()
    assert (await held(api, message_id))["status"] == "complete"
    assert phone.requests == START, "in the background it asks for nothing"
    await phone.do("show")
    assert (await assert_true(api, phone))["text"] == "before while away"
    assert phone.requests == [*START, "GET /chat/message/{id}/stream?after=1"]


async def test_however_bad_the_network_whoever_gets_on_is_not_given_up(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    """Cut after every piece, and then sent to the background again and again while the vendor is silent."""
    gates = [asyncio.Event() for _ in range(7)]
    vendor.answers(says(*(step for n, gate in enumerate(gates) for step in (f"{n} ", gate))))
    phone = await mini_program(api.base_url)
    await phone.send("count")
    for n, gate in enumerate(gates):
        await phone.until_shown("".join(f"{piece} " for piece in range(n + 1)))
        await phone.do("cut")
        await phone.until_told("request", n + 3)
        if n < 6:
            gate.set()
    for n in range(7):
        await phone.do("hide")
        await phone.until_told("hidden", n + 1)
        await phone.do("show")
        await phone.until_told("request", n + 10)
    gates[6].set()
    assert (await assert_true(api, phone))["text"] == "0 1 2 3 4 5 6 "
    assert phone.requests[2:9] == [f"GET /chat/message/{{id}}/stream?after={n}" for n in range(1, 8)]


async def test_chunks_that_come_after_success_are_not_shown_twice(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gate = asyncio.Event()
    vendor.answers(says("one ", gate, "two"))
    phone = await mini_program(api.base_url, late=1)
    await phone.send("count")
    await phone.until(lambda: phone.reply()["status"] == "running")
    gate.set()
    assert (await assert_true(api, phone))["text"] == "one two"
    assert len(phone.requests) == 3, "they are asked for again"


async def test_who_saw_more_than_was_stored_starts_over(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    """As after a crash of the service: what a phone saw last may be more than the database holds."""
    gate = asyncio.Event()
    vendor.answers(says("one ", gate, "two"))
    phone = await mini_program(api.base_url)
    await phone.send("count")
    message_id = (await phone.until_shown("one "))["messageId"]
    await phone.do("hide")
    gate.set()
    await held(api, message_id)
    await phone.do("forge", name="reply", seq=99)
    await phone.do("show")
    assert (await assert_true(api, phone))["text"] == "one two"
    assert [line.rpartition("=")[2] for line in phone.requests[2:]] == ["99", "0"]


async def test_thinking_is_shown_apart(api: Api, vendor: LoopbackVendor, mini_program: Started) -> None:
    vendor.answers(
        sends(thinks("first "), thinks("thought"), event(piece("half an ans")), whole=False),
        sends(thinks("second thought"), stream_of("the ", "answer")),
    )
    phone = await mini_program(api.base_url)
    await phone.send("hello")
    shown = await assert_true(api, phone)
    assert (shown["text"], shown["thinking"]) == ("the answer", "second thought")
    assert any(line["reply"]["thinking"] == "first thought" for line in phone.all("shown"))


async def test_who_missed_more_than_is_kept_gets_all_of_it(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gate = asyncio.Event()
    vendor.answers(says("start ", gate, *(f"{n} " for n in range(600))))
    phone = await mini_program(api.base_url)
    await phone.send("a long one")
    message_id = (await phone.until_shown("start "))["messageId"]
    await phone.do("hide")
    gate.set()
    await held(api, message_id)
    person = await api.login(CODE)
    assert "resync" in (await person.get(f"/v1/chat/message/{message_id}/stream?after=1")).text
    await phone.do("show")
    assert (await assert_true(api, phone))["text"].endswith(" 598 599 ")


async def test_an_app_that_was_closed_finds_its_reply_again(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gate = asyncio.Event()
    vendor.answers(says("before ", gate, "after"))
    phone = await mini_program(api.base_url)
    await phone.send("wait for me")
    await phone.until_shown("before ")
    await phone.do("hide")
    await phone.do("storage")
    kept = (await phone.until_told("storage"))["storage"]
    reopened = await mini_program(api.base_url, storage=kept)
    await reopened.do("unfinished", name="reply")
    await reopened.until_shown("before ")
    gate.set()
    assert (await assert_true(api, reopened))["text"] == "before after"
    assert reopened.requests == ["GET /chat/message/{id}/stream?after=0"]
    await reopened.do("unfinished", name="reply")
    assert (await reopened.until_told("unfinished"))["count"] == 1
    await reopened.until(lambda: [told["count"] for told in reopened.all("unfinished")] == [1, 0])


@pytest.mark.parametrize("answers", [1, 2])
async def test_an_answer_that_got_lost_makes_no_second_turn(
    api: Api, vendor: LoopbackVendor, mini_program: Started, answers: int
) -> None:
    phone = await mini_program(api.base_url)
    await phone.send("log me in", "first")
    await phone.until_over("first")
    await phone.do("lose", answers=answers)
    await phone.send("just once")
    shown = await assert_true(api, phone)
    assert phone.requests == [*START, *["POST /chat/message/stream"] * (answers + 1)]
    assert len(phone.keys) == 2
    assert len(vendor.requests) == 2
    again = await (await api.login(CODE)).says("just once", clientMessageId=shown["key"])
    assert (again["messageId"], again["replayed"]) == (shown["messageId"], True)


async def test_a_login_that_ended_is_renewed_once_and_the_same_message_sent(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    dead = await api.login(CODE)
    await dead.logout()
    phone = await mini_program(api.base_url, storage={"chat.token": dead.token})
    await phone.send("hello")
    await assert_true(api, phone)
    assert phone.requests == ["POST /chat/message/stream", *START]
    assert len(phone.keys) == 1
    assert len(vendor.requests) == 1


async def test_a_login_that_ends_in_the_middle_is_renewed_and_the_reply_resumed(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gate = asyncio.Event()
    vendor.answers(says("one ", gate, "two"))
    phone = await mini_program(api.base_url)
    await phone.send("count")
    await phone.until_shown("one ")
    await (await api.login(CODE)).logout(all="true")
    await phone.do("cut")
    await phone.until_told("request", 5)
    gate.set()
    assert (await assert_true(api, phone))["text"] == "one two"
    resumed = "GET /chat/message/{id}/stream?after=1"
    assert phone.requests == [*START, resumed, "POST /auth/wechat-login", resumed]


async def test_however_many_notice_one_login_serves_them_all(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    phone = await mini_program(api.base_url)
    for name in ("a", "b", "c"):
        await phone.send(f"message {name}", name)
    for name in ("a", "b", "c"):
        await assert_true(api, phone, name=name)
    assert phone.requests.count("POST /auth/wechat-login") == 1


async def test_a_reply_that_failed_is_restarted_with_its_key(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    vendor.answers(sends(event(piece("only ha")), whole=False), says("the ", "whole"))
    phone = await mini_program(api.base_url)
    await phone.send("hello")
    assert (await assert_true(api, phone))["text"] == "the whole"
    assert phone.requests == [*START, "POST /chat/message/stream"]
    assert len(phone.keys) == 1
    failed = next(line["reply"] for line in phone.all("shown") if line["reply"]["text"] == "only ha")
    assert failed["messageId"] == phone.reply()["messageId"], "under its own ids"


async def test_what_no_retry_mends_is_told_and_the_button_sends_the_same_message(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    vendor.answers(fails(401), "mended")
    phone = await mini_program(api.base_url)
    await phone.send("hello")
    shown = await phone.until_over()
    assert (shown["status"], shown["error"]["reason"]) == ("failed", "llm_misconfigured")
    assert shown["error"]["message"] == "AI 服务配置有误，请联系管理员"
    await phone.do("resume", name="reply")
    await phone.until(lambda: phone.reply()["status"] == "complete")
    assert (await assert_true(api, phone))["text"] == "mended"
    assert len(phone.keys) == 1


async def test_a_new_attempt_made_elsewhere_replaces_the_text(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    gate = asyncio.Event()

    async def fails_later(call: Call) -> None:
        await call.write(thinks("first thought") + event(piece("only ha")))
        await gate.wait()

    vendor.answers(fails_later, sends(thinks("second thought"), stream_of("the whole")))
    phone = await mini_program(api.base_url)
    await phone.send("hello there")
    shown = await phone.until_shown("only ha")
    await phone.do("hide")
    gate.set()
    assert (await held(api, shown["messageId"]))["status"] == "failed"
    elsewhere = await (await api.login(CODE)).says("hello there", clientMessageId=shown["key"])
    assert elsewhere["messageId"] == shown["messageId"]
    await phone.do("show")
    shown = await assert_true(api, phone)
    assert (shown["text"], shown["thinking"]) == ("the whole", "second thought")
    assert phone.requests == [*START, "GET /chat/message/{id}/stream?after=2"]


async def test_stop_keeps_what_there_is(api: Api, vendor: LoopbackVendor, mini_program: Started) -> None:
    vendor.answers(hangs("so ", "far"))
    phone = await mini_program(api.base_url)
    await phone.send("talk for ever")
    await phone.until_shown("so far")
    await phone.do("stop", name="reply")
    shown = await assert_true(api, phone, "stopped")
    assert (shown["text"], shown["finishReason"]) == ("so far", "stopped")
    assert (await phone.until_told("stopped"))["code"] == 200
    await vendor.until(lambda: vendor.busy == 0)


async def test_stop_before_anything_came_takes_effect_as_soon_as_it_can(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    vendor.answers(hangs())
    phone = await mini_program(api.base_url)
    await phone.send("never mind")
    await phone.do("stop", name="reply")
    assert (await assert_true(api, phone, "stopped"))["text"] == ""
    await vendor.until(lambda: vendor.busy == 0)


async def test_text_that_is_taken_back_is_replaced(api: Api, vendor: LoopbackVendor, mini_program: Started) -> None:
    vendor.answers(says("what must not be s", finish="content_filter"))
    phone = await mini_program(api.base_url)
    await phone.send("say it")
    shown = await assert_true(api, phone)
    assert (shown["text"], shown["finishReason"]) == ("抱歉，这个问题我无法回答。", "blocked")
    assert any(line["reply"]["text"] == "what must not be s" for line in phone.all("shown"))


@pytest.mark.parametrize("device", [{"chunked": False}, {"deaf": True}], ids=["old", "deaf"])
async def test_where_chunks_do_not_work_it_polls(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, mini_program: Started, device: dict[str, Any]
) -> None:
    """A base library without chunks, and a device that has them and where none comes within the minute."""
    gate = asyncio.Event()
    vendor.answers(says("so far ", gate, "and on"), "second answer")
    api = await served(sqlite_url, serve, vendor, http={"reply_wait": 0.1})
    phone = await mini_program(api.base_url, **device)
    await phone.send("hello")
    if "deaf" in device:
        await vendor.until(lambda: vendor.busy == 1)
        await phone.do("expire")
    await phone.until_shown("so far ")
    gate.set()
    assert (await assert_true(api, phone))["text"] == "so far and on"
    polled = "GET /chat/message/{id}?waitSeconds=5"
    assert [line for line in phone.requests if line != polled] == [*START, "POST /chat/message"]
    assert polled in phone.requests
    assert len(vendor.requests) == len(phone.keys) == 1
    await phone.send("again", "second")
    assert (await assert_true(api, phone, name="second"))["text"] == "second answer"
    assert phone.requests.count("POST /chat/message/stream") == 1, "it has learnt"


async def test_while_polling_a_failure_is_told_and_resumed_with_the_key(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    vendor.answers(fails(401), "mended")
    phone = await mini_program(api.base_url, chunked=False)
    await phone.send("hello")
    assert (await phone.until_over())["error"]["reason"] == "llm_misconfigured"
    await phone.do("resume", name="reply")
    await phone.until(lambda: phone.reply()["status"] == "complete")
    assert (await assert_true(api, phone))["text"] == "mended"
    assert len(phone.keys) == 1


async def test_while_polling_a_stop_stops(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, mini_program: Started
) -> None:
    vendor.answers(hangs("so far"))
    api = await served(sqlite_url, serve, vendor, http={"reply_wait": 0.1})
    phone = await mini_program(api.base_url, chunked=False)
    await phone.send("talk for ever")
    await phone.until_shown("so far")
    await phone.do("stop", name="reply")
    assert (await assert_true(api, phone, "stopped"))["text"] == "so far"


async def test_another_version_is_made_beside_the_old_one(
    api: Api, vendor: LoopbackVendor, mini_program: Started
) -> None:
    vendor.answers("first version", "second version")
    phone = await mini_program(api.base_url)
    await phone.send("hello")
    first = await assert_true(api, phone)
    await phone.do("regenerate", of="reply", name="better")
    second = await assert_true(api, phone, name="better")
    assert (first["text"], second["text"]) == ("first version", "second version")
    assert first["messageId"] != second["messageId"]
    assert first["sessionId"] == second["sessionId"]


async def test_a_limit_is_told_with_its_sentence(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, mini_program: Started
) -> None:
    """429 comes to `success`, in chunks; a minute is too long for a spinner, so it is for the user to try again."""
    api = await served(sqlite_url, serve, vendor, limits={"sends_per_minute": 1})
    phone = await mini_program(api.base_url)
    await phone.send("one", "first")
    await assert_true(api, phone, name="first")
    await phone.send("two")
    shown = await phone.until_over()
    assert (shown["status"], shown["error"]["reason"]) == ("failed", "too_many_sends")
    assert shown["error"]["message"] == "发送消息过于频繁，请稍后再试"
    assert shown["error"]["retryAfter"] > 15
    assert len(phone.requests) == 3


async def test_what_a_proxy_says_is_no_answer(vendor: LoopbackVendor, mini_program: Started) -> None:
    vendor.script = fails(502, "<html><center>502 Bad Gateway</center></html>")
    phone = await mini_program(vendor.base_url.removesuffix("/v1"), storage={"chat.token": "some token"})
    await phone.send("hello")
    shown = await phone.until_over()
    assert (shown["status"], shown["error"]["reason"]) == ("lost", "no_answer")
    assert phone.requests == ["POST /chat/message/stream"] * 5
    assert len(phone.keys) == 1


@pytest.mark.parametrize("cut", ["bytes", "random"])
async def test_utf8_is_decoded_wherever_it_is_cut(mini_program: Started, cut: str) -> None:
    """Raw UTF-8 of one to four bytes a character, and bytes that are none, as TextDecoder has them."""
    dice = random.Random(20261124)  # noqa: S311 - the same every time
    texts = ["".join(SAID).encode(), "\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode()]
    texts += [b"\xe4\xbd", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe4\xbd\xe4\xbd\xa0", b"\xf0\x9fa"]
    texts += [bytes(dice.choices(range(0x60, 0x100), k=60)) for _ in range(50)]
    phone = await mini_program("http://127.0.0.1:9", cut=cut)
    for seed, raw in enumerate(texts):
        await phone.do("decode", bytes=base64.b64encode(raw).decode(), seed=seed)
    await phone.until(lambda: len(phone.all("decoded")) == len(texts))
    assert all(line["text"] == line["expected"] for line in phone.all("decoded"))
    assert phone.all("decoded")[0]["text"] == "".join(SAID)


def test_both_readmes_lead_here() -> None:
    assert "## The client" in CLIENT.read_text()
    for readme in ("README.md", "README.zh-CN.md"):
        text = (ROOT / readme).read_text()
        assert all(f"(docs/{page}.md)" in text for page in ("client", "deploy"))
