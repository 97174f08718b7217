"""Stopping replies: what is kept, who is told, and that the vendor is left at once."""

import asyncio
import time

import pytest
from sqlalchemy import URL

from tests.fixtures.service import Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import ask, poll, regenerate, resuming, stop, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm


async def test_stopping_keeps_the_text_ends_the_stream_and_leaves_the_vendor(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(hangs("so ", "far"))
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        await stream.until_text("so far")
        begun = time.monotonic()
        stopped = await stop(person, start["messageId"])
        assert (stopped["status"], stopped["finishReason"], stopped["content"]) == ("stopped", "stopped", "so far")
        await vendor.until(lambda: vendor.busy == 0, within=1.0)
        done = await stream.done()
    assert time.monotonic() - begun < 1.5
    assert vendor.requests[0].abandoned, "the vendor saw us leave"
    assert (done["status"], done["finishReason"], stream.content) == ("stopped", "stopped", "so far")
    assert await person.look(start["messageId"]) == stopped, "answered after the end was stored"


async def test_whoever_waits_is_told_of_a_stop(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs("so far"))
    async with streaming(person, "hello", clientMessageId="k") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        blocking = asyncio.create_task(person.says("hello", clientMessageId="k"))
        polling = asyncio.create_task(poll(person, message_id, 25))
        await stop(person, message_id)
    assert ((await blocking)["status"], (await blocking)["reply"]["content"]) == ("stopped", "so far")
    assert (await polling)["status"] == "stopped"
    again = await person.says("hello", clientMessageId="k")
    assert (again["status"], again["finishReason"], again["replayed"]) == ("stopped", "stopped", True)
    assert len(vendor.requests) == 1, "a stopped turn is not begun again"


async def test_stopping_what_has_ended_is_harmless(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("whole", fails(500))
    complete = await person.says("hello")
    failed = (await person.send("fails")).json()["turn"]
    for message_id, status in ((complete["messageId"], "complete"), (failed["messageId"], "failed")):
        before = await person.look(message_id)
        for _ in range(2):
            assert await stop(person, message_id) == before
        assert before["status"] == status


async def test_many_stops_at_once_all_answer_with_the_one_end(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs("so far"))
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        answers = await asyncio.gather(*(stop(person, message_id) for _ in range(5)))
        await stream.done()
    assert all(answer == answers[0] for answer in answers)


async def test_stop_and_end_may_race_and_the_answer_tells_which_won(guest: Person, vendor: LoopbackVendor) -> None:
    seen = set()
    for _ in range(12):
        let_go = asyncio.Event()
        vendor.answers(says("part ", let_go, "whole"))
        async with streaming(guest, "hello") as stream:
            message_id = (await stream.start())["messageId"]
            await stream.until_text("part ")
            let_go.set()
            answer = await stop(guest, message_id)
            done = await stream.done()
        assert (answer["status"], answer["content"]) == (done["status"], stream.content)
        assert answer["content"] == ("part whole" if done["status"] == "complete" else answer["content"])
        seen.add(done["status"])
    assert seen <= {"complete", "stopped"}


async def test_a_turn_stopped_without_a_word_enters_no_later_prompt(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("first answer", hangs(head=False), hangs("cut sho"), "last")
    session = (await person.says("first"))["sessionId"]
    for text, expected in (("silent", ""), ("cut", "cut sho")):
        async with streaming(person, text, sessionId=session) as stream:
            message_id = (await stream.start())["messageId"]
            if expected:
                await stream.until_text(expected)
            assert (await stop(person, message_id))["content"] == expected
    await person.says("last", sessionId=session)
    told = [message["content"] for message in vendor.requests[-1].messages]
    assert told == ["first", "first answer", "cut", "cut sho", "last"]


async def test_only_its_user_stops_a_reply(
    person: Person, vendor: LoopbackVendor, any_database: URL, serve: Serve
) -> None:
    vendor.answers(hangs("so far"))
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    mallory = await api.login("dev:mallory")
    async with streaming(person, "hello") as stream:
        start = await stream.start()
        for message_id in (start["messageId"], "0" * 32, "nonsense"):
            assert reason_of(await ask(mallory, message_id, "stop")) == (404, "message_not_found")
        assert reason_of(await ask(person, start["userMessageId"], "stop")) == (404, "message_not_found")
        assert (await person.look(start["messageId"]))["status"] == "running"


async def test_a_stopped_reply_can_be_regenerated_at_once(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs("so far"), "anew")
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        await stop(person, message_id)
        assert (await regenerate(person, message_id))["reply"]["content"] == "anew"
        await stream.done()


# --- From another instance ------------------------------------------------------------------------------------------


async def test_a_stop_from_another_instance_ends_the_reply_with_the_text_last_saved(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatassist.domain.upkeep.SAVE_SECONDS", 0.05)
    vendor.answers(hangs("so far"))
    settings = settings_for(any_database, llm=llm(vendor))
    here, there = await serve(settings), await serve(settings)
    person = await here.login()
    elsewhere = Person(there.http, person.token, person.user)
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        async with asyncio.timeout(5):
            while (await elsewhere.look(message_id))["content"] != "so far":
                pass
        begun = time.monotonic()
        stopped = await stop(elsewhere, message_id)
        assert time.monotonic() - begun < 2
        assert (stopped["status"], stopped["content"]) == ("stopped", "so far")
        await vendor.until(lambda: vendor.busy == 0, within=3)
        done = await stream.done()
    assert (done["status"], stream.content) == ("stopped", "so far")
    for one in (person, elsewhere):
        assert await one.look(message_id) == stopped
    async with resuming(elsewhere, message_id) as later:
        assert await later.done() == done
    assert data_of(await ask(person, message_id, "stop")) == stopped
