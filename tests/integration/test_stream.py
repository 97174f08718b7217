"""Sending with a stream: what leaves when, in which form, and how it ends, over a real socket."""

import asyncio
import json
import re
import socket
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.entrypoints.http.server import EnvelopeProtocol
from tests.fixtures.service import Person, Serve, reason_of, settings_for
from tests.fixtures.streams import Stream, poll, resuming, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, event, fails, floods, hangs, piece, says, sends, stream_of
from tests.integration.test_document import WHOLE_SECONDS, llm

ID = re.compile(r"[0-9a-f]{32}")
TEXT = ("你好", "，世界", " 😀👨‍👩‍👧", "\n\ndata: x\nid: 9\n\n", '"\\', "\u2028\u2029", " end ")


async def test_the_first_byte_leaves_before_the_vendor_has_spoken(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs(head=False))
    async with streaming(person, "hello", headers={"Accept-Encoding": "gzip, br"}) as stream:
        start = await stream.start()
        headers = stream.answer.headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-store, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["X-Request-Id"]
        assert "Content-Encoding" not in headers
        assert "Content-Length" not in headers
        assert all(ID.fullmatch(start[name]) for name in ("messageId", "sessionId", "userMessageId"))
        assert start["replayed"] is False
        assert (await person.look(start["messageId"]))["status"] == "running"


async def test_what_a_client_puts_together_equals_what_the_database_holds(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(says(*TEXT))
    async with streaming(person, "问题 😀") as stream:
        start = await stream.start()
        done = await stream.done()
    assert stream.content == "".join(TEXT)
    assert list(done) == ["status", "finishReason", "length", "model", "usage", "time"]
    assert WHOLE_SECONDS.fullmatch(done.pop("time"))
    assert done == {
        "status": "complete",
        "finishReason": "stop",
        "length": len("".join(TEXT)),
        "model": "loopback-1",
        "usage": {"inputTokens": 7, "outputTokens": 5},
    }
    shown = await person.look(start["messageId"])
    assert shown["content"] == stream.content
    assert (shown["sessionId"], shown["role"], shown["aiGenerated"]) == (start["sessionId"], "assistant", True)


async def test_deltas_that_come_together_are_each_their_own_event(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(sends(stream_of("a", "b", "c", "d")))
    stream = await streamed(person, "hello")
    assert stream.deltas == ["a", "b", "c", "d"]
    assert [one.seq for one in stream.events] == [None, 1, 2, 3, 4, 5]


async def test_every_piece_leaves_at_once(person: Person, vendor: LoopbackVendor) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    vendor.answers(says("one", gates[0], " two", gates[1], " three", gates[2]))
    async with streaming(person, "hello") as stream:
        for gate, so_far in zip(gates, ("one", "one two", "one two three"), strict=True):
            await stream.until_text(so_far)
            gate.set()
        await stream.done()


async def test_what_a_model_thinks_is_told_apart_and_is_no_part_of_the_text(
    person: Person, vendor: LoopbackVendor
) -> None:
    async def thinks(call: Call) -> None:
        for thought in ("先想", "一想"):
            await call.event({**piece(), "choices": [{"index": 0, "delta": {"reasoning_content": thought}}]})
        await says("answer")(call)

    vendor.answers(thinks)
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        done = await stream.done()
    assert stream.names == ["start", "thinking", "thinking", "delta", "done"]
    assert (stream.thinking, stream.content, done["length"]) == ("先想一想", "answer", 6)
    shown = await person.look(start["messageId"])
    assert (shown["thinking"], shown["content"]) == ("先想一想", "answer")
    await person.says("and then?", sessionId=start["sessionId"])
    assert "先想" not in str(vendor.requests[-1].messages)


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (fails(429), {"code": 500, "reason": "llm_overloaded", "retryable": True, "retryAfter": 5}),
        (fails(500), {"code": 500, "reason": "llm_unavailable", "retryable": True, "retryAfter": 10}),
        (fails(401), {"code": 500, "reason": "llm_misconfigured", "retryable": False}),
        (
            fails(400, {"error": {"code": "context_length_exceeded"}}),
            {"code": 400, "reason": "context_too_long", "retryable": False},
        ),
        (says("half", finish=None, done=False), {"code": 500, "reason": "llm_unavailable", "retryAfter": 10}),
        (hangs("half"), {"code": 500, "reason": "llm_timeout", "retryable": True, "retryAfter": 5}),
    ],
    ids=lambda value: value["reason"] if isinstance(value, dict) else "",
)
async def test_a_reply_that_fails_ends_with_one_error(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, behaviour: Behaviour, told: dict[str, Any]
) -> None:
    vendor.answers(behaviour)
    api = await serve(settings_for(sqlite_url, llm=llm(vendor, idle_timeout=0.3)))
    person = await api.login()
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        error = await stream.error()
    assert {"code", "reason", "message", "status", "retryable"} <= set(error)
    assert set(error) - {"retryAfter"} == {"code", "reason", "message", "status", "retryable"}
    assert error["status"] == "failed"
    assert {name: error.get(name) for name in told} == told
    assert error["retryable"] is ("retryAfter" in error)
    assert re.search(r"[\u4e00-\u9fff]", error["message"])
    assert stream.events[-1].seq is not None
    shown = await person.look(start["messageId"])
    assert (shown["status"], shown["reason"], shown["finishReason"]) == ("failed", told["reason"], "error")
    assert shown["content"] == stream.content


async def test_what_is_wrong_before_the_first_byte_is_an_envelope(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(sqlite_url, llm=llm(vendor), limits={"sends_per_minute": 1}))
    person = await api.login()

    async def refused(**body: Any) -> tuple[int, str]:
        answer = await api.http.post("/v1/chat/message/stream", json=body, headers=person.bearer)
        assert answer.headers["Content-Type"] == "application/json"
        return reason_of(answer)

    assert await refused(content=" ") == (400, "content_empty")
    assert await refused(content="x" * 8001) == (400, "content_too_long")
    assert await refused(content=5) == (400, "invalid_request")
    assert await refused(content="x", clientMessageId="a b") == (400, "client_message_id_invalid")
    assert await refused(content="x", model="unknown") == (400, "model_unknown")
    assert await refused(content="x", sessionId="nonsense") == (404, "session_not_found")
    anonymous = await api.http.post("/v1/chat/message/stream", json={"content": "x"})
    assert reason_of(anonymous) == (401, "token_missing")
    await streamed(person, "hello", clientMessageId="k")
    assert await refused(content="other", clientMessageId="k") == (400, "idempotency_mismatch")
    assert await refused(content="x") == (429, "too_many_sends")
    assert len(vendor.requests) == 1, "a refusal costs no vendor call"


async def test_refused_output_is_withdrawn(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(says("what must not be s", finish="content_filter"))
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        done = await stream.done()
    replaced = next(one for one in stream.events if one.name == "replace")
    assert replaced.data == {"content": "抱歉，这个问题我无法回答。", "reason": "moderation"}
    assert (done["status"], done["finishReason"]) == ("complete", "blocked")
    assert (await person.look(start["messageId"]))["content"] == stream.content == "抱歉，这个问题我无法回答。"


async def test_an_endless_reply_ends_at_its_limit(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(floods(event(piece("more " * 40))))
    async with streaming(person, "hello") as stream:
        done = await stream.done()
    assert (done["status"], done["finishReason"], done["length"]) == ("complete", "length", 64_000)
    await vendor.until(lambda: vendor.busy == 0)


async def test_silence_is_filled_with_comments(
    guest: Person, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatassist.domain.replies.follow.SILENCE", 0.05)
    let_go = asyncio.Event()
    vendor.answers(says(let_go, "late"))
    async with streaming(guest, "hello") as stream:
        await stream.start()
        for _ in range(3):
            await stream.until_comment()
        let_go.set()
        await stream.done()
    assert stream.content == "late"


async def test_a_client_that_leaves_loses_nothing(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("part ", let_go, "whole"))
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        await stream.until_text("part ")
    let_go.set()
    shown = await poll(person, start["messageId"])
    assert (shown["status"], shown["content"]) == ("complete", "part whole")
    assert not vendor.requests[0].abandoned


async def test_many_follow_one_reply_and_all_see_the_same(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("one ", let_go, "two"))

    async def follow(opened: AbstractAsyncContextManager[Stream]) -> Stream:
        async with opened as stream:
            await stream.done()
        return stream

    async with streaming(person, "hello", clientMessageId="k") as first:
        message_id = (await first.start())["messageId"]
        await first.until_text("one ")
        again = [asyncio.create_task(follow(streaming(person, "hello", clientMessageId="k"))) for _ in range(3)]
        more = [asyncio.create_task(follow(resuming(person, message_id))) for _ in range(3)]
        blocking = asyncio.create_task(person.says("hello", clientMessageId="k"))
        let_go.set()
        await first.done()
    streams = await asyncio.gather(*again, *more)
    assert {stream.content for stream in streams} == {first.content} == {"one two"}
    assert all(stream.events[1:] == first.events[1:] for stream in streams)
    assert (await blocking)["reply"]["content"] == "one two"
    assert len(vendor.requests) == 1


async def test_the_deadline_ends_reply_stream_and_vendor_call(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(hangs("so far"))
    api = await serve(settings_for(sqlite_url, llm=llm(vendor, deadline=0.5)))
    person = await api.login()
    async with streaming(person, "hello") as stream:
        error = await stream.error()
        await vendor.until(lambda: vendor.busy == 0, within=1.0)
    assert (error["reason"], stream.content) == ("llm_timeout", "so far")
    assert vendor.requests[0].abandoned, "the vendor saw us leave"


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the system from holding megabytes of what the service sends."""
    made = EnvelopeProtocol.connection_made

    def connection_made(self: EnvelopeProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(EnvelopeProtocol, "connection_made", connection_made)


@pytest.mark.usefixtures("small_buffers")
async def test_who_does_not_read_delays_nobody_and_misses_nothing(guest: Person, vendor: LoopbackVendor) -> None:
    """The reply grows to its limit while the reader takes nothing: what he missed comes as all text at once."""
    vendor.answers(floods(b"".join(map(event, [piece("字" * 10)] * 20))))
    body = json.dumps({"content": "hello"}).encode()
    head = "POST /v1/chat/message/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {guest.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # bytes that the system holds for him
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", int(str(guest.http.base_url).rpartition(":")[2].strip("/"))))
        await loop.sock_sendall(slow, head.encode() + body)
        await vendor.until(lambda: len(vendor.requests) == 1)
        await vendor.until(lambda: vendor.busy == 0, within=30)
        received = b""
        while data := await loop.sock_recv(slow, 65536):
            received += data
    events = received.partition(b"\r\n\r\n")[2]
    names = re.findall(rb"event: (\w+)", events)
    assert names[0] == b"start"
    assert names[-2:] == [b"replace", b"done"], "all text at once, and the end"
    assert names.count(b"done") == 1
    assert names.count(b"delta") < 6400, "what was missed was never written"
    assert len(json.loads(events.rpartition(b"event: replace\ndata: ")[2].partition(b"\n")[0])["content"]) == 64_000
    assert "字".encode() not in events, "ASCII"
    assert b'"length":64000' in events
