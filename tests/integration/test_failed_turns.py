"""Turns that fail, over HTTP: each with its reason and its ids, nothing of the vendor's, and no harm to later turns."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.service import Api, Serve, data_of, reason_of, serving, settings_for
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, fails, floods, hangs, redirects, resets, says, sends
from tests.integration.test_document import llm

SECRET_OF_VENDOR = "vendor-internal-4711"


@pytest.mark.parametrize(
    ("behaviour", "expected", "retry_after"),
    [
        (fails(429, {"error": {"message": SECRET_OF_VENDOR}}, {"Retry-After": "7"}), (500, "llm_overloaded"), "5"),
        (fails(500, {"error": SECRET_OF_VENDOR}), (500, "llm_unavailable"), "10"),
        (fails(404, {"error": {"code": "model_not_found"}}), (500, "llm_misconfigured"), None),
        (fails(400, {"error": {"code": "context_length_exceeded"}}), (400, "context_too_long"), None),
        (sends(f"<html>{SECRET_OF_VENDOR}</html>".encode(), content_type="text/html"), (500, "llm_unavailable"), "10"),
        (sends(b'data: {"error":{"message":"vendor-internal-4711"}}\n\n'), (500, "llm_unavailable"), "10"),
        (sends(b"data: {broken\n\n"), (500, "llm_unavailable"), "10"),
        (says("half an ans", finish=None, done=False), (500, "llm_unavailable"), "10"),
        (says(), (500, "llm_unavailable"), "10"),
        (resets("half"), (500, "llm_unavailable"), "10"),
        (hangs(), (500, "llm_timeout"), "5"),
        (hangs(head=False), (500, "llm_timeout"), "5"),
        (redirects("http://127.0.0.1:9/v1/chat/completions"), (500, "llm_misconfigured"), None),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, tuple) else "",
)
async def test_each_way_a_vendor_fails(
    sqlite_url: URL,
    serve: Serve,
    vendor: LoopbackVendor,
    behaviour: Behaviour,
    expected: tuple[int, str],
    retry_after: str | None,
) -> None:
    vendor.answers(behaviour)
    api = await serve(settings_for(sqlite_url, llm=llm(vendor, idle_timeout=0.3)))
    person = await api.login()
    answer = await person.send("hello", clientMessageId="key-1")
    assert reason_of(answer) == expected
    assert answer.headers.get("Retry-After") == retry_after
    assert answer.headers["Cache-Control"] == "no-store"
    assert "vendor" not in answer.text
    assert set(answer.json()["turn"]) == {"sessionId", "messageId", "userMessageId"}
    shown = await person.look(answer.json()["turn"]["messageId"])
    assert (shown["status"], shown["reason"]) == ("failed", expected[1])
    assert len(vendor.requests) == 1, "a failure is no reason to call again unasked"
    vendor.answers(behaviour, "at last")
    again = await person.send("hello", clientMessageId="key-1")
    assert reason_of(again) == expected, "the same send tries once more"
    assert again.headers.get("Retry-After") == retry_after
    assert again.json()["turn"] == answer.json()["turn"], "under its own ids"
    saved = await person.says("hello", clientMessageId="key-1")
    assert (saved["messageId"], saved["reply"]["content"]) == (answer.json()["turn"]["messageId"], "at last")
    assert saved["replayed"] is False
    assert len(vendor.requests) == 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (fails(402, {"error": {"message": SECRET_OF_VENDOR}}), "llm_unavailable"),
        (fails(401, {"error": {"message": f"Incorrect API key {SECRET_OF_VENDOR}"}}), "llm_misconfigured"),
    ],
    ids=["unpaid", "key"],
)
async def test_a_vendor_that_serves_nobody_is_left_alone_for_a_while(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, behaviour: Behaviour, reason: str
) -> None:
    """Whoever comes meanwhile is told so at once, at no cost; the operator has to act, and needs no restart for it."""
    vendor.script = behaviour
    api = await serve(settings_for(sqlite_url, llm=llm(vendor)))
    person = await api.login()
    answer = await person.send("hello", clientMessageId="key-1")
    assert reason_of(answer) == (500, reason)
    assert "vendor" not in answer.text
    for key in ("key-1", "key-2"):
        again = await person.send("hello", clientMessageId=key)
        assert reason_of(again) == (500, reason)
    assert len(vendor.requests) == 1


async def test_an_endless_reply_is_cut_and_the_vendor_is_left(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(floods())
    api = await serve(settings_for(sqlite_url, llm=llm(vendor)))
    person = await api.login()
    data = await person.says("go on for ever")
    assert (data["status"], data["finishReason"], len(data["reply"]["content"])) == ("complete", "length", 64_000)
    await vendor.until(lambda: vendor.busy == 0)
    assert (await person.look(data["messageId"]))["content"] == data["reply"]["content"]


async def test_a_failed_turn_enters_no_later_prompt_and_locks_nothing(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers("first answer", fails(500), "third answer")
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    session = (await person.says("first"))["sessionId"]
    assert (await person.send("second", sessionId=session)).status_code == 500
    await person.says("third", sessionId=session)
    assert [message["content"] for message in vendor.requests[-1].messages] == ["first", "first answer", "third"]


async def test_refused_content_is_a_polite_reply_and_enters_no_later_prompt(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(says("what must not be s", finish="content_filter"), fails(400, {"error": {"code": "1301"}}), "ok")
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    session = None
    for text in ("bad output", "bad input"):
        data = await person.says(text, sessionId=session)
        assert (data["status"], data["finishReason"]) == ("complete", "blocked")
        assert data["reply"]["content"] == "抱歉，这个问题我无法回答。"
        session = data["sessionId"]
    await person.says("good", sessionId=session)
    assert [message["content"] for message in vendor.requests[-1].messages] == ["good"]


async def test_one_key_at_once_on_two_instances_is_one_turn(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.script = says(let_go, "the one answer")
    settings = settings_for(any_database, llm=llm(vendor))
    here, there = await serve(settings), await serve(settings)
    ours = await here.login("dev:twice")
    theirs = await there.login("dev:twice")
    sends = [asyncio.create_task(person.send("hello", clientMessageId="same")) for person in [ours, theirs] * 5]
    await vendor.until(lambda: vendor.busy == 1)
    let_go.set()
    answers = [data_of(await send) for send in sends]
    assert len({(answer["sessionId"], answer["messageId"], answer["userMessageId"]) for answer in answers}) == 1
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert {answer["reply"]["content"] for answer in answers} == {"the one answer"}
    assert len(vendor.requests) == 1
    assert (await theirs.look(answers[0]["messageId"]))["content"] == "the one answer"


async def test_two_sends_at_once_in_a_session_both_run(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    session = (await person.says("first"))["sessionId"]
    vendor.script = says(let_go, "answer")
    sends = [asyncio.create_task(person.says(f"at once {n}", sessionId=session)) for n in range(4)]
    await vendor.until(lambda: vendor.busy == 4)
    let_go.set()
    assert {answer["status"] for answer in await asyncio.gather(*sends)} == {"complete"}
    assert {len(request.messages) for request in vendor.requests[1:]} == {3}, "each with what was finished before"


async def test_a_client_that_leaves_loses_nothing(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.script = says("part ", let_go, "whole")
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    person = await api.login()
    leaving = asyncio.create_task(person.send("hello", clientMessageId="left-1"))
    await vendor.until(lambda: vendor.busy == 1)
    leaving.cancel()
    await asyncio.wait({leaving})
    let_go.set()
    await vendor.until(lambda: vendor.busy == 0)
    again = await person.says("hello", clientMessageId="left-1")
    assert (again["reply"]["content"], again["replayed"]) == ("part whole", True)
    assert len(vendor.requests) == 1


async def test_while_it_shuts_down_replies_finish_and_new_sends_are_sent_elsewhere(
    sqlite_url: URL, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.script = says(let_go, "in time")
    settings = settings_for(sqlite_url, llm=llm(vendor), http={"drain_seconds": 20})
    async with serving(settings) as api:
        person = await api.login()
        running = asyncio.create_task(person.send("hello"))
        await vendor.until(lambda: vendor.busy == 1)
        api.stop()
        while (ready := await api.http.get("/readyz")).status_code == 200:
            pass
        assert reason_of(ready) == (503, "shutting_down")
        refused = await person.send("too late")
        assert reason_of(refused) == (500, "shutting_down")
        assert refused.headers["Retry-After"]
        let_go.set()
        assert data_of(await running)["reply"]["content"] == "in time"
    assert len(vendor.requests) == 1


async def test_what_does_not_finish_in_time_is_interrupted_with_its_text(
    sqlite_url: URL, vendor: LoopbackVendor, serve: Serve
) -> None:
    vendor.script = hangs("so far")
    settings = settings_for(sqlite_url, llm=llm(vendor), http={"drain_seconds": 0.2})
    async with serving(settings) as api:
        person = await api.login()
        running = asyncio.create_task(person.send("hello"))
        await vendor.until(lambda: vendor.busy == 1)
        api.stop()
        cut = await running
    assert reason_of(cut) == (500, "reply_interrupted")
    await vendor.until(lambda: vendor.busy == 0)
    successor: Api = await serve(settings)
    person = await successor.login()
    shown: dict[str, Any] = await person.look(cut.json()["turn"]["messageId"])
    assert (shown["status"], shown["reason"], shown["content"]) == ("failed", "reply_interrupted", "so far")


async def test_what_is_still_pending_at_the_very_end_is_told_in_the_envelope(sqlite_url: URL) -> None:
    """A body that never comes: uvicorn cancels the request, and would answer in plain text by itself."""
    async with serving(settings_for(sqlite_url)) as api:
        port = int(api.base_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/auth/wechat-login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        while (await api.http.get("/healthz")).status_code != 200:
            pass
        api.stop()
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert (json.loads(body)["reason"], json.loads(body)["data"]) == ("shutting_down", None)
