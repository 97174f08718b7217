"""The client of docs/client.md where the way to the service is bad: cut, lost, asleep, logged out, without chunks."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.miniprogram import Started
from tests.fixtures.service import Api, Serve
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Call, event, fails, hangs, piece, says, sends, stream_of
from tests.integration.watching import CODE, START, assert_true, held, served, thinks


@pytest.fixture
async def api(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    """The service, with the loopback vendor behind it."""
    return await served(sqlite_url, serve, vendor)


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
    vendor.answers(fails(404), "mended")
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


async def test_what_a_proxy_says_is_no_answer(vendor: LoopbackVendor, mini_program: Started) -> None:
    vendor.script = fails(502, "<html><center>502 Bad Gateway</center></html>")
    phone = await mini_program(vendor.base_url.removesuffix("/v1"), storage={"chat.token": "some token"})
    await phone.send("hello")
    shown = await phone.until_over()
    assert (shown["status"], shown["error"]["reason"]) == ("lost", "no_answer")
    assert phone.requests == ["POST /chat/message/stream"] * 5
    assert len(phone.keys) == 1
