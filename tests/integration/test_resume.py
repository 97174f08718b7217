"""Coming back to a reply: resuming its stream after any number, and polling it."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from sqlalchemy import URL

from tests.fixtures.service import Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import Event, ask, listening, poll, resuming, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says, sends, stream_of
from tests.integration.test_document import llm

PIECES = ("一", "二", "😀", " four", " five")


def content_at(events: Sequence[Event], seq: int) -> str:
    """Return what a client has put together when it saw the events up to this number."""
    return "".join(one.data["text"] for one in events if one.name == "delta" and one.seq and one.seq <= seq)


async def test_a_stream_goes_on_after_any_number(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(sends(stream_of(*PIECES)))
    whole = await streamed(person, "hello")
    message_id, last = whole.events[0].data["messageId"], whole.events[-1].seq
    assert last == len(PIECES) + 1
    for after in range(last):
        async with resuming(person, message_id, after, content_at(whole.events, after)) as stream:
            assert (await stream.start()) == {**whole.events[0].data, "replayed": True}
            await stream.done()
        assert stream.content == "".join(PIECES)
        assert stream.events[1:] == whole.events[1 + after :], "what came after, and nothing twice"


async def test_a_finished_reply_that_was_seen_to_its_end_ends_at_once(person: Person) -> None:
    whole = await streamed(person, "hello")
    async with resuming(person, whole.events[0].data["messageId"], whole.seq, whole.content) as stream:
        await stream.done()
    assert stream.names == ["start", "done"]
    assert stream.content == whole.content


async def test_a_resumed_stream_goes_on_live(person: Person, vendor: LoopbackVendor) -> None:
    gate = asyncio.Event()
    vendor.answers(says("one ", "two ", gate, "three"))
    async with streaming(person, "hello") as first:
        message_id = (await first.start())["messageId"]
        await first.until_text("one two ")
    async with resuming(person, message_id, 1, "one ") as second:
        await second.start()
        await second.until_text("one two ")
        gate.set()
        await second.done()
    assert second.deltas == ["two ", "three"]
    assert (await person.look(message_id))["content"] == second.content == "one two three"


@pytest.mark.parametrize("how", [{"Last-Event-ID": "3"}, {"Last-Event-ID": "3", "after": "1"}, {"after": "3"}])
async def test_the_number_may_come_as_last_event_id(guest: Person, vendor: LoopbackVendor, how: dict[str, str]) -> None:
    vendor.answers(sends(stream_of(*PIECES)))
    whole = await streamed(guest, "hello")
    path = f"/v1/chat/message/{whole.events[0].data['messageId']}/stream"
    headers = {name: value for name, value in how.items() if name != "after"}
    query = {name: value for name, value in how.items() if name == "after"}
    async with listening(guest, "GET", path, 3, content_at(whole.events, 3), headers=headers, params=query) as stream:
        await stream.done()
    assert stream.deltas == list(PIECES[3:])


@pytest.mark.parametrize("empty", [None, "", "0"])
async def test_without_a_number_everything_is_told(guest: Person, vendor: LoopbackVendor, empty: str | None) -> None:
    vendor.answers(sends(stream_of(*PIECES)))
    whole = await streamed(guest, "hello")
    path = f"/v1/chat/message/{whole.events[0].data['messageId']}/stream"
    async with listening(guest, "GET", path, 0, params={} if empty is None else {"after": empty}) as stream:
        await stream.done()
    assert stream.events[1:] == whole.events[1:]


BAD = ["x", "-1", "1.0", "1.5", "1e1", "0x1", "+1", " 1", "１", "NaN", "7", "999999", "9" * 15, "9" * 5000, "1,1"]


@pytest.mark.parametrize("running", [True, False], ids=["running", "finished"])
async def test_a_number_that_is_none_or_lies_beyond_the_last_is_refused(
    guest: Person, vendor: LoopbackVendor, running: bool
) -> None:
    """Beyond what a running reply has come to as well: whoever names it did not see it here."""
    vendor.answers(hangs(*PIECES) if running else sends(stream_of(*PIECES)))
    async with streaming(guest, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("".join(PIECES))
        if not running:
            await stream.done()
        for bad in BAD:
            answer = await ask(guest, message_id, "stream", "GET", params={"after": bad})
            assert reason_of(answer) == (400, "bad_seq"), bad
            if bad.isascii() and not bad.startswith(" "):  # what a header can hold
                path = f"/v1/chat/message/{message_id}/stream"
                answer = await guest.get(path, {"Last-Event-ID": bad})
                assert reason_of(answer) == (400, "bad_seq"), bad


async def test_events_that_are_no_longer_held_come_as_all_text_so_far(person: Person, vendor: LoopbackVendor) -> None:
    pieces = [f"{number} " for number in range(400)]
    vendor.answers(sends(stream_of(*pieces)))
    whole = await streamed(person, "hello")
    message_id = whole.events[0].data["messageId"]
    for after, names in ((5, ["start", "replace", "done"]), (390, ["start", *["delta"] * 10, "done"])):
        async with resuming(person, message_id, after, "".join(pieces[:after])) as stream:
            await stream.done()
        assert stream.names == names
        assert stream.content == "".join(pieces)
        assert {one.data["reason"] for one in stream.events if one.name == "replace"} <= {"resync"}


async def test_after_a_restart_of_the_service_the_row_tells_it_all(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    settings = settings_for(any_database, llm=llm(vendor))
    vendor.answers(sends(stream_of(*PIECES)), says("half", finish=None, done=False))
    first: Api = await serve(settings)
    person = await first.login()
    whole = await streamed(person, "hello")
    async with streaming(person, "fails") as failing:
        told = await failing.error()
    later: Api = await serve(settings)
    again = Person(later.http, person.token, person.user)
    for after in range(whole.seq or 0):
        async with resuming(again, whole.events[0].data["messageId"], after, content_at(whole.events, after)) as stream:
            await stream.done()
        assert stream.content == "".join(PIECES)
        assert (stream.events[-1].seq, stream.events[-1].data) == (whole.seq, whole.events[-1].data)
    async with resuming(again, failing.events[0].data["messageId"]) as stream:
        assert await stream.error() == told
    assert stream.content == "half"


async def test_a_failed_reply_tells_its_failure_again(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(fails(500))
    async with streaming(person, "hello") as first:
        message_id = (await first.start())["messageId"]
        told = await first.error()
    async with resuming(person, message_id) as again:
        assert await again.error() == told


# --- Polling --------------------------------------------------------------------------------------------------------


async def test_a_poll_answers_as_soon_as_the_reply_has_ended(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("part", let_go, " whole"))
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("part")
        begun = time.monotonic()
        shown = await poll(person, message_id, 0)
        assert (shown["status"], shown["content"]) == ("running", "part")
        assert "finishReason" not in shown
        waiting = asyncio.create_task(poll(person, message_id, 25))
        shown = await poll(person, message_id, 0.3)
        assert shown["status"] == "running", "the time is over"
        let_go.set()
        shown = await waiting
    assert (shown["status"], shown["finishReason"], shown["content"]) == ("complete", "stop", "part whole")
    assert time.monotonic() - begun < 5


async def test_the_message_object_is_exact(person: Person) -> None:
    sent = await person.says("hello")
    shown = await poll(person, sent["messageId"], 25)
    assert shown == {
        "messageId": sent["messageId"],
        "sessionId": sent["sessionId"],
        "role": "assistant",
        "content": sent["reply"]["content"],
        "status": "complete",
        "finishReason": "stop",
        "model": "loopback-1",
        "usage": sent["usage"],
        "versions": [sent["messageId"]],
        "aiGenerated": True,
        "time": sent["reply"]["time"],
    }


@pytest.mark.parametrize("seconds", ["26", "25.01", "-1", "-0.1", "NaN", "Infinity", "-Infinity", "text", "1e9", ""])
async def test_a_wait_that_is_none_is_refused_and_named(guest: Person, seconds: str) -> None:
    sent = await guest.says("hello")
    answer = await ask(guest, sent["messageId"], method="GET", params={"waitSeconds": seconds})
    assert reason_of(answer) == (400, "invalid_request")
    assert answer.json()["message"] == "请求参数错误：waitSeconds"


async def test_a_blocking_send_hands_over_and_the_reply_is_followed_to_its_end(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("so far", let_go, " and whole"))
    api = await serve(settings_for(any_database, llm=llm(vendor), http={"reply_wait": 0.3}))
    person = await api.login()
    data = await person.says("hello", clientMessageId="k")
    assert (data["status"], data["finishReason"], data["replayed"]) == ("running", None, False)
    polling = asyncio.create_task(poll(person, data["messageId"], 25))
    async with resuming(person, data["messageId"]) as stream:
        await stream.until_text("so far")
        again = await person.says("hello", clientMessageId="k")
        assert (again["status"], again["reply"]["content"], again["replayed"]) == ("running", "so far", True)
        let_go.set()
        await stream.done()
    assert (await polling)["content"] == stream.content == "so far and whole"
    again = await person.says("hello", clientMessageId="k")
    assert (again["status"], again["replayed"], again["reply"]["content"]) == ("complete", True, stream.content)
    assert data_of(await ask(person, data["messageId"], method="GET"))["status"] == "complete"
