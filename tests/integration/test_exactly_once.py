"""One key, one turn: by both ways to send, at once and again, after failures and after deletion."""

import asyncio
from typing import Any

from sqlalchemy import URL

from tests.fixtures.service import Person, Serve, reason_of, settings_for
from tests.fixtures.streams import Stream, delete, resuming, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, says
from tests.integration.test_document import llm

IDS = ("sessionId", "messageId", "userMessageId")


def ids_of(data: Any) -> tuple[str, ...]:
    return tuple(data[name] for name in IDS)


async def followed(person: Person, content: str, **more: Any) -> Stream:
    async with streaming(person, content, **more) as stream:
        await stream.last()
    return stream


async def test_blocking_and_stream_share_their_keys(person: Person, vendor: LoopbackVendor) -> None:
    first = await person.says("hello", clientMessageId="one")
    stream = await streamed(person, "hello", clientMessageId="one")
    assert stream.events[0].data == {**dict(zip(IDS, ids_of(first), strict=True)), "replayed": True}
    assert stream.content == first["reply"]["content"]
    other = await streamed(person, "hi", headers={"Idempotency-Key": "two"})
    again = await person.says("hi", clientMessageId="two")
    assert (again["replayed"], ids_of(again)) == (True, ids_of(other.events[0].data))
    assert again["reply"]["content"] == other.content
    assert len(vendor.requests) == 2


async def test_many_at_once_by_both_ways_are_one_turn(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("the ", let_go, "one"))
    blocking = [asyncio.create_task(person.says("hello", clientMessageId="k")) for _ in range(5)]
    streams = [asyncio.create_task(followed(person, "hello", clientMessageId="k")) for _ in range(5)]
    await vendor.until(lambda: vendor.busy == 1)
    let_go.set()
    sent, seen = await asyncio.gather(*blocking), await asyncio.gather(*streams)
    starts = [stream.events[0].data for stream in seen]
    assert len({ids_of(data) for data in [*sent, *starts]}) == 1
    assert sum(not data["replayed"] for data in [*sent, *starts]) == 1
    assert {*(data["reply"]["content"] for data in sent), *(stream.content for stream in seen)} == {"the one"}
    assert len(vendor.requests) == 1


async def test_what_counts_as_the_same_send(person: Person, vendor: LoopbackVendor) -> None:
    first = await person.says("  hello ", clientMessageId="k")
    for session in ({}, {"sessionId": ""}, {"sessionId": None}, {"sessionId": first["sessionId"]}):
        again = await person.says("hello\n", clientMessageId="k", **session)
        assert again == {**first, "replayed": True}
    elsewhere = await person.says("another")
    for other in (
        {"content": "hello!"},
        {"content": "Hello"},
        {"content": "hello", "model": "loopback-1"},
        {"content": "hello", "sessionId": elsewhere["sessionId"]},
        {"content": "hello", "sessionId": "0" * 32},
    ):
        answer = await person.send(other.pop("content"), clientMessageId="k", **other)
        assert reason_of(answer) == (400, "idempotency_mismatch"), other
    within = await person.says("more", sessionId=first["sessionId"], clientMessageId="k-2")
    assert (await person.says("more", sessionId=first["sessionId"], clientMessageId="k-2"))["replayed"]
    answer = await person.send("more", clientMessageId="k-2")
    assert reason_of(answer) == (400, "idempotency_mismatch"), "it opened no session"
    assert within["sessionId"] == first["sessionId"]
    assert len(vendor.requests) == 3


async def test_a_key_is_one_persons_own(
    person: Person, any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    other = await (await serve(settings_for(any_database, llm=llm(vendor)))).login("dev:other")
    first, second = await person.says("hello", clientMessageId="k"), await other.says("hello", clientMessageId="k")
    assert (first["replayed"], second["replayed"]) == (False, False)
    assert first["messageId"] != second["messageId"]


async def test_a_failed_turn_is_begun_again_under_its_own_ids(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("zero", says("half", finish=None, done=False), fails(500), "whole")
    session = (await person.says("before"))["sessionId"]
    failed = await person.send("hello", sessionId=session, clientMessageId="k")
    assert reason_of(failed) == (500, "llm_unavailable")
    turn = failed.json()["turn"]
    async with streaming(person, "hello", sessionId=session, clientMessageId="k") as second:
        assert (await second.start()) == {**turn, "replayed": False}
        assert (await second.error())["status"] == "failed"
    third = await person.says("hello", sessionId=session, clientMessageId="k")
    assert {name: third[name] for name in IDS} == turn
    assert (third["reply"]["content"], third["replayed"]) == ("whole", False)
    assert (await person.says("hello", sessionId=session, clientMessageId="k"))["replayed"]
    assert [message["content"] for message in vendor.requests[-1].messages] == ["before", "zero", "hello"]
    shown = await person.look(turn["messageId"])
    assert (shown["status"], shown["content"], shown["versions"]) == ("complete", "whole", [turn["messageId"]])
    assert "reason" not in shown
    assert len(vendor.requests) == 4


async def test_an_attempt_numbers_its_events_from_its_own_million(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(says("half", finish=None, done=False), says("who", "le"))
    async with streaming(person, "hello", clientMessageId="k") as first:
        await first.error()
    async with streaming(person, "hello", clientMessageId="k") as second:
        message_id = (await second.start())["messageId"]
        await second.done()
    assert [(one.name, one.seq) for one in first.events[1:]] == [("delta", 1), ("error", 2)]
    assert [(one.name, one.seq) for one in second.events[1:]] == [
        ("replace", 1_000_001),
        ("delta", 1_000_002),
        ("delta", 1_000_003),
        ("done", 1_000_004),
    ]
    assert second.events[1].data == {"content": "", "reason": "restarted"}
    for after, content in ((0, ""), (1, "half"), (2, "half")):
        async with resuming(person, message_id, after, content) as later:
            await later.done()
        assert later.content == second.content == "whole"


async def test_who_follows_is_carried_into_the_next_attempt(person: Person, vendor: LoopbackVendor) -> None:
    """Resumed while the next attempt runs, with what was seen of the last: the text begins anew."""
    let_go = asyncio.Event()
    vendor.answers(says("half", finish=None, done=False), says("who", let_go, "le"))
    async with streaming(person, "hello", clientMessageId="k") as first:
        message_id = (await first.start())["messageId"]
        await first.error()
    async with streaming(person, "hello", clientMessageId="k") as second:
        await second.until_text("who")
        async with resuming(person, message_id, first.seq, first.content) as later:
            await later.until_text("who")
            let_go.set()
            await later.done()
    assert later.content == "whole"


async def test_of_many_that_begin_a_failed_turn_again_one_does(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(fails(500), says(let_go, "whole"))
    turn = (await person.send("hello", clientMessageId="k")).json()["turn"]
    blocking = [asyncio.create_task(person.says("hello", clientMessageId="k")) for _ in range(5)]
    streams = [asyncio.create_task(followed(person, "hello", clientMessageId="k")) for _ in range(5)]
    await vendor.until(lambda: len(vendor.requests) == 2)
    let_go.set()
    sent, seen = await asyncio.gather(*blocking), await asyncio.gather(*streams)
    everything = [*sent, *(stream.events[0].data for stream in seen)]
    assert {data["messageId"] for data in everything} == {turn["messageId"]}
    assert sum(not data["replayed"] for data in everything) == 1
    assert {*(data["reply"]["content"] for data in sent), *(stream.content for stream in seen)} == {"whole"}
    assert len(vendor.requests) == 2


async def test_beginning_again_counts_as_a_send_and_repeating_does_not(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(fails(500), "whole")
    person = await (await serve(settings_for(sqlite_url, llm=llm(vendor), limits={"sends_per_minute": 2}))).login()
    assert (await person.send("hello", clientMessageId="k")).status_code == 500
    assert (await person.says("hello", clientMessageId="k"))["reply"]["content"] == "whole"
    for _ in range(3):
        assert (await person.says("hello", clientMessageId="k"))["replayed"]
        assert (await streamed(person, "hello", clientMessageId="k")).content == "whole"
    assert reason_of(await person.send("more")) == (429, "too_many_sends")
    assert reason_of(await person.send("more", clientMessageId="k-2")) == (429, "too_many_sends")
    assert len(vendor.requests) == 2


async def test_a_failed_turn_that_may_not_be_begun_again_yet_stays_failed(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(fails(500))
    person = await (await serve(settings_for(sqlite_url, llm=llm(vendor), limits={"sends_per_minute": 1}))).login()
    turn = (await person.send("hello", clientMessageId="k")).json()["turn"]
    refused = await person.send("hello", clientMessageId="k")
    assert reason_of(refused) == (429, "too_many_sends")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await person.look(turn["messageId"]))["status"] == "failed"


async def test_a_refused_send_claims_no_key(guest: Person, vendor: LoopbackVendor) -> None:
    for content, more in ((" ", {}), ("x", {"model": "unknown"}), ("x", {"sessionId": "0" * 32})):
        answer = await guest.post({"content": content, "clientMessageId": "k", **more})
        assert 400 <= answer.status_code < 429
    assert not (await guest.says("x", clientMessageId="k"))["replayed"]
    assert len(vendor.requests) == 1


async def test_a_deleted_turn_keeps_its_key(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", fails(500))
    sent = await person.says("hello", clientMessageId="k")
    turn = (await person.send("fails", clientMessageId="f")).json()["turn"]
    for message_id, content, key in ((sent["messageId"], "hello", "k"), (turn["messageId"], "fails", "f")):
        await delete(person, message_id)
        for text in (content, "something else"):
            assert reason_of(await person.send(text, clientMessageId=key)) == (404, "message_not_found")
        stream = await person.http.post(
            "/v1/chat/message/stream", json={"content": content, "clientMessageId": key}, headers=person.bearer
        )
        assert reason_of(stream) == (404, "message_not_found")
    assert len(vendor.requests) == 2


async def test_without_a_key_every_send_is_a_new_turn(guest: Person, vendor: LoopbackVendor) -> None:
    sent = await asyncio.gather(*(guest.says("hello") for _ in range(3)))
    assert len({data["messageId"] for data in sent}) == 3
    assert len(vendor.requests) == 3
