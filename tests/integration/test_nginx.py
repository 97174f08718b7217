"""The nginx configuration of docs/deploy.md before the real service: what it lets through, when, in whose words."""

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import URL

from chatassist.settings import HttpSettings, Settings
from tests.fixtures.miniprogram import code_of
from tests.fixtures.nginx import PAGE, Fronted, sample
from tests.fixtures.recordings import padded, wav
from tests.fixtures.service import Answer, Api, Person, Serve, data_of, reason_of, serving, settings_for
from tests.fixtures.speech import spoken
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says

MEBIBYTE = 1024 * 1024
SECONDS = 20.0
Event = dict[str, Any]


def trusting(url: URL, vendor: LoopbackVendor, **more: dict[str, Any]) -> Settings:
    """Return settings of a service that trusts a proxy on loopback."""
    llm = {"base_url": vendor.base_url, "api_key": "sk-loopback-key", "model": "loopback-1"}
    asr = {"engine": "whisper_api", **llm}
    http = {"trusted_proxies": "127.0.0.1", **more.pop("http", {})}
    return settings_for(url, llm=llm, asr=asr, http=http, **more)


@pytest.fixture
async def service(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    api: Api = await serve(trusting(sqlite_url, vendor))
    return api


@asynccontextmanager
async def streaming(person: Person, method: str, path: str, **more: Any) -> AsyncIterator[AsyncIterator[Event]]:
    """Open a stream, and give its events (and comments, without a type) one by one as they arrive."""
    headers = {**person.bearer, "Accept-Encoding": "gzip"}
    async with asyncio.timeout(SECONDS), person.http.stream(method, path, headers=headers, **more) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Transfer-Encoding"] == "chunked"
        yield events_of(answer)


async def events_of(answer: Answer) -> AsyncIterator[Event]:
    fields: Event = {"type": None}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            fields["type"] = value
        if name == "id":
            fields["seq"] = int(value)
        if name == "data":
            fields.update(json.loads(value))
        if not line:
            yield fields
            fields = {"type": None}


async def test_events_arrive_one_by_one_while_the_vendor_still_speaks(
    service: Api, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    """The vendor says the next piece only when the client has seen the one before."""
    gates = [asyncio.Event() for _ in range(5)]
    vendor.answers(says(*(step for n, gate in enumerate(gates) for step in (f"piece {n} ", gate))))
    person = await fronted(service).login()
    seen = []
    async with streaming(person, "POST", "/v1/chat/message/stream", json={"content": "count"}) as events:
        assert (await anext(events))["type"] == "start"
        for gate in gates:
            seen.append((await anext(events))["text"])
            gate.set()
        assert [event["type"] async for event in events] == ["done"]
    assert seen == [f"piece {n} " for n in range(5)]


async def test_a_stream_is_resumed_behind_the_last_event(
    service: Api, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    gate = asyncio.Event()
    vendor.answers(says("one ", "two ", gate, "three"))
    person = await fronted(service).login()
    async with streaming(person, "POST", "/v1/chat/message/stream", json={"content": "count"}) as events:
        message_id = (await anext(events))["messageId"]
        last = await anext(events)
    path = f"/v1/chat/message/{message_id}/stream?after={last['seq']}"
    async with streaming(person, "GET", path) as events:
        assert (await anext(events))["messageId"] == message_id
        assert (await anext(events))["text"] == "two "
        gate.set()
        assert (await anext(events))["text"] == "three"
        assert (await anext(events))["type"] == "done"
    assert (await person.look(message_id))["content"] == "one two three"


async def test_silence_does_not_cut_a_stream(
    service: Api, vendor: LoopbackVendor, fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the page, but fifty times faster: ten comments are more than nginx waits for a byte."""
    monkeypatch.setattr("chatassist.domain.replies.follow.SILENCE", 0.2)
    gate = asyncio.Event()
    vendor.answers(says("before ", gate, "after"))
    faster = {"proxy_read_timeout 75s": "proxy_read_timeout 1s"}
    person = await fronted(service, changes=faster).login()
    async with streaming(person, "POST", "/v1/chat/message/stream", json={"content": "think"}) as events:
        assert (await anext(events))["type"] == "start"
        assert (await anext(events))["text"] == "before "
        for _ in range(10):
            assert (await anext(events))["type"] is None
        gate.set()
        assert (await anext(events))["text"] == "after"
        assert (await anext(events))["type"] == "done"


async def test_a_blocking_send_may_take_its_whole_wait(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    vendor.answers(hangs("so far"))
    service = await serve(trusting(sqlite_url, vendor, http={"reply_wait": 0.5}))
    person = await fronted(service).login()
    assert (await person.says("take your time"))["status"] == "running"
    waits = re.search(r"proxy_read_timeout (\d+)s", sample())
    assert waits
    assert HttpSettings().reply_wait + 5 < int(waits[1]), "on the page, as by default"


def silence_of(size: int) -> bytes:
    """Return a WAV file of so many bytes, so dense that it lasts less than a minute."""
    rate, frame = 192_000, 4
    form = struct.pack("<IHHIIHH", 16, 1, 2, rate, rate * frame, frame, 16)
    head = b"RIFF%bWAVEfmt %bdata%b" % (struct.pack("<I", size - 8), form, struct.pack("<I", size - 44))
    return head + bytes(size - len(head))


async def test_the_largest_recording_passes(service: Api, vendor: LoopbackVendor, fronted: Fronted) -> None:
    vendor.answers(fails(200, {"text": "识别出的文本内容"}))
    person = await fronted(service).login()
    answer = await person.speaks(padded(wav(spoken()), 24 * MEBIBYTE), "recording.wav")
    assert data_of(answer)["text"] == "识别出的文本内容"


async def test_one_byte_more_is_refused_by_the_service_and_much_more_by_nginx_in_its_words(
    service: Api, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    person = await fronted(service).login()
    assert reason_of(await person.speaks(silence_of(24 * MEBIBYTE + 1))) == (400, "audio_too_large")
    refused = await person.speaks(silence_of(26 * MEBIBYTE))
    assert (refused.status_code, refused.headers["Content-Type"]) == (400, "application/json")
    theirs = await person.send("x" * 300_000)
    ours = refused.json()
    assert {**ours, "requestId": ""} == {**theirs.json(), "requestId": ""}, "as the service itself would say it"
    assert re.fullmatch("[0-9a-f]{32}", ours["requestId"])
    assert vendor.requests == []


async def test_limits_by_address_count_the_client_and_not_the_proxies(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    """The client is behind one more proxy on loopback, as behind a load balancer; loopback itself is not counted."""
    api = fronted(await serve(trusting(sqlite_url, vendor, limits={"logins_per_minute": 2})))

    async def login(forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded}
        answer = await api.http.post("/v1/auth/wechat-login", json={"code": "dev:somebody"}, headers=headers)
        return answer.status_code

    assert [await login("203.0.113.7") for _ in range(3)] == [200, 200, 429]
    assert await login("198.51.100.9, 203.0.113.7") == 429, "what the client claims himself is not believed"
    assert await login("203.0.113.8") == 200


async def test_an_instance_that_is_gone_is_passed_over_and_both_gone_is_said_in_the_envelope(
    sqlite_url: URL, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    settings = trusting(sqlite_url, vendor)
    async with serving(settings) as first:
        async with serving(settings) as second:
            api = fronted(first, second)
            people = [await api.login(f"dev:somebody-{n}") for n in range(8)]
        assert {(await person.get("/v1/user/info")).status_code for person in people} == {200}
    answer = await people[0].get("/v1/user/info")
    answer.headers["X-Request-Id"] = answer.json()["requestId"]  # nginx does not repeat it
    assert reason_of(answer) == (500, "shutting_down")
    assert answer.headers["Retry-After"] == "2"


async def test_all_requests_of_a_login_go_to_one_instance(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, fronted: Fronted
) -> None:
    """So a stream that is resumed is live without Redis too: elsewhere it would wait for the end."""
    api = fronted(*[await serve(trusting(sqlite_url, vendor)) for _ in range(2)])
    for n in range(4):
        gate = asyncio.Event()
        vendor.answers(says("one ", "two ", gate, "three"))
        person = await api.login(f"dev:somebody-{n}")
        async with streaming(person, "POST", "/v1/chat/message/stream", json={"content": "count"}) as events:
            message_id = (await anext(events))["messageId"]
        async with streaming(person, "GET", f"/v1/chat/message/{message_id}/stream") as events:
            assert [(await anext(events))["type"] for _ in range(3)] == ["start", "delta", "delta"]
            gate.set()
            assert [event["type"] async for event in events] == ["delta", "done"]


async def test_json_is_compressed_and_still_recognised_by_its_tag(service: Api, fronted: Fronted) -> None:
    person = await fronted(service).login("dev:somebody", userInfo={"nickName": "甲"})
    first = await person.get("/v1/user/info", {"Accept-Encoding": "gzip"})
    assert first.headers["Content-Encoding"] == "gzip"
    again = await person.get("/v1/user/info", {"Accept-Encoding": "gzip", "If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_the_unit_gives_a_drain_its_time() -> None:
    unit = code_of(PAGE.read_text(), "systemd: chatassist@.service")
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert seconds
    assert int(seconds[1]) > HttpSettings().drain_seconds + 5


async def test_its_log_tells_who_asked_for_what_but_no_words_of_theirs(
    service: Api, fronted: Fronted, tmp_path: Path
) -> None:
    person = await fronted(service).login()
    data_of(await person.get(f"/v1/chat/search?keyword={quote('秘密')}"))
    logged = (tmp_path / "chatassist.log").read_text()
    assert re.search(r"^127\.0\.0\.1 \[\S+\] GET /v1/chat/search 200 \d+ \d+\.\d+$", logged, re.MULTILINE)
    assert "keyword" not in logged
