"""The service ends while replies run: every stream is ended properly, nothing said is lost, the key begins again."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import URL

from tests.fixtures.service import Person, Serve, data_of, reason_of, serving, settings_for
from tests.fixtures.streams import poll, resuming, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import hangs, says
from tests.integration.test_document import llm


async def test_streams_of_replies_that_finish_in_time_end_with_done(any_database: URL, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.script = says("so far", let_go, " and whole")
    async with serving(settings_for(any_database, llm=llm(vendor), http={"drain_seconds": 20})) as api:
        person = await api.login()
        async with streaming(person, "hello") as first, streaming(person, "hi", clientMessageId="k") as second:
            await first.until_text("so far")
            await second.until_text("so far")
            message_id = second.events[0].data["messageId"]
            api.stop()
            while (await api.http.get("/readyz")).status_code == 200:
                pass
            for path, key in (("message", "new"), ("message/stream", "newer")):
                body = {"content": "too late", "clientMessageId": key}
                refused = await api.http.post(f"/v1/chat/{path}", json=body, headers=person.bearer)
                assert reason_of(refused) == (500, "shutting_down")
                assert int(refused.headers["Retry-After"]) > 0
            attached = asyncio.create_task(person.says("hi", clientMessageId="k"))
            polling = asyncio.create_task(poll(person, message_id, 25))
            async with resuming(person, message_id) as resumed:
                await resumed.until_text("so far")
                let_go.set()
                for stream in (first, second, resumed):
                    assert (await stream.done())["status"] == "complete"
                    assert stream.content == "so far and whole"
            assert (await attached)["reply"]["content"] == (await polling)["content"] == "so far and whole"
    assert len(vendor.requests) == 2


async def test_what_does_not_finish_in_time_ends_with_an_error_and_is_begun_again_by_its_key(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.script = hangs("so far")
    settings = settings_for(any_database, llm=llm(vendor), http={"drain_seconds": 0.2})
    async with serving(settings) as api:
        person = await api.login()
        async with streaming(person, "hello", clientMessageId="k") as stream:
            start = await stream.start()
            await stream.until_text("so far")
            async with resuming(person, start["messageId"]) as resumed:
                await resumed.until_text("so far")
                blocking = asyncio.create_task(person.send("hello", clientMessageId="k"))
                api.stop()
                told = [await stream.error(), await resumed.error()]
        assert reason_of(await blocking) == (500, "reply_interrupted")
    assert told[0] == told[1]
    expected = {"code": 500, "reason": "reply_interrupted", "status": "failed", "retryable": True, "retryAfter": 1}
    assert {name: told[0][name] for name in expected} == expected
    await vendor.until(lambda: vendor.busy == 0)
    vendor.script = says("whole")
    successor = await serve(settings)
    again = Person(successor.http, person.token, person.user)
    shown = await again.look(start["messageId"])
    assert (shown["status"], shown["reason"], shown["content"]) == ("failed", "reply_interrupted", "so far")
    async with resuming(again, start["messageId"], 1, "so far") as later:
        assert (await later.error())["reason"] == "reply_interrupted"
    sent = await again.says("hello", clientMessageId="k")
    assert (sent["messageId"], sent["reply"]["content"]) == (start["messageId"], "whole")


async def test_who_follows_a_reply_of_another_instance_is_sent_elsewhere(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.script = says("so far", let_go, " and whole")
    settings = settings_for(any_database, llm=llm(vendor), http={"drain_seconds": 0.2})
    owner = await serve(settings)
    person = await owner.login()
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        async with serving(settings) as leaving:
            elsewhere = Person(leaving.http, person.token, person.user)
            async with resuming(elsewhere, message_id) as followed:
                await followed.start()
                leaving.stop()
                error = await followed.error()
        assert (error["reason"], error["status"], error["retryable"]) == ("shutting_down", "running", True)
        let_go.set()
        await stream.done()
    async with resuming(person, message_id, followed.seq, followed.content) as later:
        await later.done()
    assert later.content == "so far and whole"


@pytest.mark.parametrize("streamed_too", [False, True])
async def test_a_replay_is_answered_while_the_service_ends(
    sqlite_url: URL, vendor: LoopbackVendor, streamed_too: bool
) -> None:
    vendor.answers("whole", hangs("so far"))
    async with serving(settings_for(sqlite_url, llm=llm(vendor), http={"drain_seconds": 1})) as api:
        person = await api.login()
        await person.says("hello", clientMessageId="k")
        async with streaming(person, "keeps it open") as stream:
            await stream.until_text("so far")
            api.stop()
            while (await api.http.get("/readyz")).status_code == 200:
                pass
            if streamed_too:
                assert (await streamed(person, "hello", clientMessageId="k")).content == "whole"
            else:
                assert data_of(await person.send("hello", clientMessageId="k"))["replayed"]
            await stream.error()


async def test_a_stream_whose_end_cannot_be_stored_is_ended_too_when_the_server_waits_no_longer(
    sqlite_url: URL, vendor: LoopbackVendor
) -> None:
    vendor.script = hangs("so far")
    async with serving(settings_for(sqlite_url, llm=llm(vendor), http={"drain_seconds": 0.2})) as api:
        person = await api.login()
        async with streaming(person, "hello") as stream:
            await stream.until_text("so far")
            with closing(sqlite3.connect(str(sqlite_url.database))) as other:
                other.execute("BEGIN IMMEDIATE")  # nobody else writes
                api.stop()
                error = await stream.error()
    assert (error["reason"], error["status"], error["retryable"]) == ("shutting_down", "running", True)
