"""The client of docs/client.md, taken out of the page and run in Node against the real service.

Every chunk it is given is a single byte, unless a test says otherwise. Whatever happens on the way, what it has put
together at the end is what the service holds. See test_client_network.py for what happens on the way.
"""

import asyncio
import base64
import random
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.miniprogram import CLIENT, Started
from tests.fixtures.service import ROOT, Api, Serve
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import event, fails, hangs, piece, says, sends, stream_of
from tests.integration.watching import SAID, START, assert_true, held, served, thinks


@pytest.fixture
async def api(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    """The service, with the loopback vendor behind it."""
    return await served(sqlite_url, serve, vendor)


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
    vendor.answers(fails(404), "mended")
    phone = await mini_program(api.base_url)
    await phone.send("hello")
    shown = await phone.until_over()
    assert (shown["status"], shown["error"]["reason"]) == ("failed", "llm_misconfigured")
    assert shown["error"]["message"] == "AI 服务配置有误，请联系管理员"
    await phone.do("resume", name="reply")
    await phone.until(lambda: phone.reply()["status"] == "complete")
    assert (await assert_true(api, phone))["text"] == "mended"
    assert len(phone.keys) == 1


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


async def test_what_the_user_thinks_of_a_reply_is_kept(api: Api, vendor: LoopbackVendor, mini_program: Started) -> None:
    phone = await mini_program(api.base_url)
    await phone.send("hello")
    shown = await assert_true(api, phone)
    await phone.do("feedback", name="reply", rating="like")
    assert (await phone.until_told("feedback"))["code"] == 200
    assert "like" in str((await held(api, shown["messageId"]))["feedback"])


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
