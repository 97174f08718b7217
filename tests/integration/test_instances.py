"""Two instances on one database, and nothing else between them: keys, ends and deletion hold on both."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import delete, listening, resuming, stop, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm
from tests.integration.test_exactly_once import followed, ids_of


async def two(database: URL, serve: Serve, vendor: LoopbackVendor, **more: Any) -> tuple[Person, Person]:
    """The same person on two instances with one database."""
    settings = settings_for(database, llm=llm(vendor), **more)
    here, there = await serve(settings), await serve(settings)
    person = await here.login()
    return person, Person(there.http, person.token, person.user)


async def test_duplicates_on_both_instances_are_one_turn(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("the ", let_go, "one"))
    here, there = await two(any_database, serve, vendor)
    blocking = [asyncio.create_task(each.says("hello", clientMessageId="k")) for each in [here, there] * 4]
    streams = [asyncio.create_task(followed(each, "hello", clientMessageId="k")) for each in [here, there] * 4]
    await vendor.until(lambda: vendor.busy == 1)
    let_go.set()
    sent, seen = await asyncio.gather(*blocking), await asyncio.gather(*streams)
    everything = [*sent, *(stream.events[0].data for stream in seen)]
    assert len({ids_of(data) for data in everything}) == 1
    assert sum(not data["replayed"] for data in everything) == 1
    assert {*(data["reply"]["content"] for data in sent), *(stream.content for stream in seen)} == {"the one"}
    assert len({stream.seq for stream in seen}) == 1, "the end has one number"
    assert len(vendor.requests) == 1


async def test_from_elsewhere_a_reply_is_followed_to_its_end(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("so far", let_go, " and whole"))
    here, there = await two(any_database, serve, vendor)
    async with streaming(here, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        async with resuming(there, message_id) as elsewhere, resuming(there, message_id, 1, "so far") as resumed:
            await elsewhere.start()
            await resumed.start()
            let_go.set()
            done = await stream.done()
            assert await elsewhere.done() == await resumed.done() == done
    assert elsewhere.content == resumed.content == stream.content == "so far and whole"
    assert elsewhere.names[-2:] == ["replace", "done"]
    assert elsewhere.events[-2].data == {"content": "so far and whole", "reason": "resync"}


@pytest.mark.parametrize("redis", [True, False], ids=["with redis", "without redis"])
async def test_a_number_beyond_the_last_is_refused_elsewhere_too_where_there_is_redis(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, shared_redis: RedisServer, redis: bool
) -> None:
    vendor.answers(hangs("one ", "two"))
    here, there = await two(sqlite_url, serve, vendor, **({"redis": {"url": shared_redis.url}} if redis else {}))
    async with streaming(here, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("one two")
        async with resuming(there, message_id, stream.seq, stream.content) as resumed:
            await resumed.start()
        for after in (3, 4711, 1_000_000):
            path = f"/v1/chat/message/{message_id}/stream?after={after}"
            if redis:
                assert reason_of(await there.get(path)) == (400, "bad_seq")
            else:  # how far it has come is not known here
                async with listening(there, "GET", path, after) as accepted:
                    await accepted.start()
        answer = await there.get(f"/v1/chat/message/{message_id}/stream?after=1000001")
        assert reason_of(answer) == (400, "bad_seq"), "so far no attempt can come"
        await stop(here, message_id)


async def test_a_failed_turn_is_begun_again_on_the_other_instance(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(says("half", finish=None, done=False), "whole")
    here, there = await two(any_database, serve, vendor)
    async with streaming(here, "hello", clientMessageId="k") as first:
        message_id = (await first.start())["messageId"]
        await first.error()
    again = await there.says("hello", clientMessageId="k")
    assert (again["messageId"], again["reply"]["content"], again["replayed"]) == (message_id, "whole", False)
    for each in (here, there):
        assert (await each.look(message_id))["content"] == "whole"
        async with resuming(each, message_id, first.seq, first.content) as later:
            await later.done()
        assert later.content == "whole"
        assert (await each.says("hello", clientMessageId="k"))["replayed"]
        assert (await streamed(each, "hello", clientMessageId="k")).content == "whole"
    assert len(vendor.requests) == 2


async def test_many_on_both_instances_begin_a_failed_turn_again_once(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.answers(fails(500), says(let_go, "whole"))
    here, there = await two(any_database, serve, vendor)
    await here.send("hello", clientMessageId="k")
    sends = [asyncio.create_task(each.send("hello", clientMessageId="k")) for each in [here, there] * 5]
    await vendor.until(lambda: len(vendor.requests) == 2)
    let_go.set()
    answers = [data_of(answer) for answer in await asyncio.gather(*sends)]
    assert {answer["reply"]["content"] for answer in answers} == {"whole"}
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert len(vendor.requests) == 2


async def test_a_key_used_on_one_instance_is_known_on_the_other_at_once(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(hangs("so far"))
    here, there = await two(any_database, serve, vendor, http={"reply_wait": 0.2})
    async with streaming(here, "hello", clientMessageId="k") as stream:
        start = await stream.start()
        attached = await there.says("hello", clientMessageId="k")
        assert (attached["status"], attached["replayed"], ids_of(attached)) == ("running", True, ids_of(start))
        assert reason_of(await there.send("other", clientMessageId="k")) == (400, "idempotency_mismatch")
        await stop(here, start["messageId"])
        await stream.done()
    assert (await there.says("hello", clientMessageId="k"))["status"] == "stopped"
    await delete(there, start["messageId"])
    for each in (here, there):
        assert reason_of(await each.send("hello", clientMessageId="k")) == (404, "message_not_found")


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_deleted_reply_ends_the_streams_that_follow_it(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, elsewhere: bool
) -> None:
    vendor.answers(hangs("so far"))
    here, there = await two(any_database, serve, vendor)
    async with streaming(here, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        async with resuming(there, message_id) as other:
            await other.start()
            assert await delete(there if elsewhere else here, message_id) == {"deletedMessages": 2}
            await stream.last()
            await other.last()
        await vendor.until(lambda: vendor.busy == 0, within=3)
    for each in (here, there):
        answer = await each.get(f"/v1/chat/message/{message_id}")
        assert reason_of(answer) == (404, "message_not_found")
