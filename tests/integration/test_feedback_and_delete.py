"""What a user thinks of a reply, and turns that he deletes for good."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.logs import RUN
from tests.fixtures.service import Person, Serve, reason_of, settings_for
from tests.fixtures.streams import ask, delete, poll, rate, regenerate, stop, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm
from tests.integration.test_processes import rows

COMMENT = "不错 😀 'quoted' \\ %s\nsecond line"

# --- Feedback -------------------------------------------------------------------------------------------------------


async def test_a_rating_is_kept_changed_and_taken_back(person: Person) -> None:
    sent = await person.says("hello")
    plain = await person.look(sent["messageId"])
    assert "feedback" not in plain
    for rating, comment in (("like", COMMENT), ("dislike", None), ("dislike", None), ("like", "x" * 500)):
        given = {} if comment is None else {"comment": comment}
        shown = await rate(person, sent["messageId"], rating, **given)
        assert shown == {**plain, "feedback": {"rating": rating, **given}}
        assert await person.look(sent["messageId"]) == shown
    for _ in range(2):
        assert await rate(person, sent["messageId"], None) == plain
    assert await rate(person, sent["messageId"], None, comment="kept for nothing") == plain


async def test_a_running_and_a_failed_reply_can_be_rated(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("so far", let_go), fails(500), "whole")
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        shown = await rate(person, message_id, "like")
        assert (shown["status"], shown["content"], shown["feedback"]) == ("running", "so far", {"rating": "like"})
        let_go.set()
        await stream.done()
    assert (await person.look(message_id))["feedback"] == {"rating": "like"}
    turn = (await person.send("fails", clientMessageId="k")).json()["turn"]
    assert (await rate(person, turn["messageId"], "dislike"))["status"] == "failed"
    await person.says("fails", clientMessageId="k")
    assert (await person.look(turn["messageId"]))["feedback"] == {"rating": "dislike"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "invalid_request"),
        ({"rating": "love"}, "invalid_request"),
        ({"rating": "LIKE"}, "invalid_request"),
        ({"rating": 1}, "invalid_request"),
        ({"rating": True}, "invalid_request"),
        ({"rating": "like", "comment": "x" * 501}, "invalid_request"),
        ({"rating": "like", "comment": 5}, "invalid_request"),
        ({"rating": "like", "comment": "a\x00b"}, "content_invalid"),
        ({"rating": "like", "comment": "a\rb"}, "content_invalid"),
        ([], "json_invalid"),
    ],
    ids=repr,
)
async def test_a_rating_that_is_none_changes_nothing(guest: Person, body: Any, expected: str) -> None:
    sent = await guest.says("hello")
    before = await rate(guest, sent["messageId"], "like", comment=COMMENT)
    answer = await ask(guest, sent["messageId"], "feedback", "PUT", json=body)
    assert reason_of(answer) == (400, expected)
    assert await guest.look(sent["messageId"]) == before


async def test_a_comment_with_a_lone_surrogate_is_refused(guest: Person) -> None:
    sent = await guest.says("hello")
    path = f"/v1/chat/message/{sent['messageId']}/feedback"
    headers = {**guest.bearer, "Content-Type": "application/json"}
    answer = await guest.http.put(path, content=b'{"rating":"like","comment":"\\ud800"}', headers=headers)
    assert reason_of(answer) == (400, "content_invalid")


# --- Deleting -------------------------------------------------------------------------------------------------------

SECRET = "不可留下的秘密-7f3a"


async def test_a_deleted_turn_is_gone_for_good_with_all_its_versions(
    person: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    RUN.keep_private(SECRET)
    vendor.answers("zero", f"one {SECRET}", f"two {SECRET}", "last")
    session = (await person.says("before"))["sessionId"]
    first = await person.says(f"asked {SECRET}", sessionId=session, clientMessageId="k-1")
    second = await regenerate(person, first["messageId"], clientMessageId="k-2")
    await rate(person, first["messageId"], "dislike", comment=SECRET)
    assert SECRET in str(await rows(any_database, "SELECT * FROM messages"))
    assert await delete(person, first["messageId"]) == {"deletedMessages": 3}
    assert SECRET not in str(await rows(any_database, "SELECT * FROM messages"))
    for message_id in (first["messageId"], second["messageId"]):
        await everything_is_404(person, message_id)
    await person.says("after", sessionId=session)
    assert [message["content"] for message in vendor.requests[-1].messages] == ["before", "zero", "after"]


async def everything_is_404(person: Person, message_id: str) -> None:
    answers = [
        await ask(person, message_id, method="GET"),
        await ask(person, message_id, method="GET", params={"waitSeconds": "25"}),
        await ask(person, message_id, "stream", "GET"),
        await ask(person, message_id, "stop"),
        await ask(person, message_id, "regenerate"),
        await ask(person, message_id, "regenerate/stream"),
        await ask(person, message_id, "feedback", "PUT", json={"rating": "like"}),
        await ask(person, message_id, method="DELETE"),
    ]
    assert {reason_of(answer) for answer in answers} == {(404, "message_not_found")}
    assert len({answer.text.partition('"requestId"')[0] for answer in answers}) == 1, "and all alike"


async def test_a_running_turn_is_stopped_and_then_deleted(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs("so far"))
    async with streaming(person, "hello") as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("so far")
        waiting = asyncio.create_task(ask(person, message_id, method="GET", params={"waitSeconds": "25"}))
        assert await delete(person, message_id) == {"deletedMessages": 2}
        await vendor.until(lambda: vendor.busy == 0, within=1)
        await stream.last()
    assert (await waiting).status_code in (200, 404), "stopped, or gone already"
    await everything_is_404(person, message_id)


async def test_any_version_deletes_the_whole_turn_and_no_other(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", "two", fails(500), hangs("running"))
    first = await person.says("first")
    second = await person.says("second", sessionId=first["sessionId"])
    await ask(person, second["messageId"], "regenerate")
    async with streaming(person, "elsewhere") as other:
        other_id = (await other.start())["messageId"]
        await other.until_text("running")
        assert await delete(person, second["messageId"]) == {"deletedMessages": 3}
        assert (await poll(person, other_id, 0))["status"] == "running"
        await stop(person, other_id)
    assert (await person.look(first["messageId"]))["content"] == "one"


async def test_deleting_twice_at_once_deletes_once(person: Person) -> None:
    sent = await person.says("hello")
    answers = await asyncio.gather(*(ask(person, sent["messageId"], method="DELETE") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404, 404]


async def test_nobody_else_and_no_question_can_be_rated_or_deleted(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    alice, mallory = await api.login("dev:alice"), await api.login("dev:mallory")
    sent = await alice.says("hello")
    before = await alice.look(sent["messageId"])
    for message_id in (sent["messageId"], sent["userMessageId"], "0" * 32, "nonsense", "%F0%9F%98%80"):
        await everything_is_404(mallory, message_id)
    await everything_is_404(alice, sent["userMessageId"])
    assert await alice.look(sent["messageId"]) == before


async def test_looking_at_replies_is_limited(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 3}))
    person = await api.login()
    sent = await person.says("hello")
    answers = [
        await ask(person, sent["messageId"], method="GET"),
        await ask(person, sent["messageId"], "feedback", "PUT", json={"rating": "like"}),
        await ask(person, sent["messageId"], "stop"),
        await ask(person, sent["messageId"], "stream", "GET"),
        await ask(person, sent["messageId"], method="DELETE"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert reason_of(answers[-1]) == (429, "too_many_reads")
    assert int(answers[-1].headers["Retry-After"]) > 0
