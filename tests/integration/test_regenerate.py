"""Another reply to the session's last message: a version beside the old one, by the rules of what is shown."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import ask, delete, rate, regenerate, regenerating, stop, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm


async def refused(person: Person, message_id: str, **body: Any) -> tuple[int, str]:
    """Return what both ways to regenerate answer."""
    blocking = await ask(person, message_id, "regenerate", json=body)
    streaming_one = await ask(person, message_id, "regenerate/stream", json=body)
    assert reason_of(blocking) == reason_of(streaming_one)
    return reason_of(blocking)


def said(vendor: LoopbackVendor) -> list[str]:
    return [message["content"] for message in vendor.requests[-1].messages]


async def test_a_new_version_stands_beside_the_old(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("zero", "one", "two", "three")
    session = (await person.says("before"))["sessionId"]
    first = await person.says("asked", sessionId=session)
    second = await regenerate(person, first["messageId"])
    assert said(vendor) == ["before", "zero", "asked"], "what was said before, and the message once"
    assert set(second) == set(first)
    assert second["messageId"] != first["messageId"]
    same = ("sessionId", "userMessageId")
    assert [second[name] for name in same] == [first[name] for name in same]
    assert (second["reply"]["content"], second["status"], second["replayed"]) == ("two", "complete", False)
    async with regenerating(person, second["messageId"]) as stream:
        start = await stream.start()
        await stream.done()
    assert (stream.content, start["userMessageId"]) == ("three", first["userMessageId"])
    ids = [first["messageId"], second["messageId"], start["messageId"]]
    for message_id, content in zip(ids, ("one", "two", "three"), strict=True):
        shown = await person.look(message_id)
        assert (shown["content"], shown["versions"]) == (content, ids)
    await person.says("after", sessionId=session)
    assert said(vendor) == ["before", "zero", "asked", "three", "after"], "the newest good version"


async def test_only_the_last_turn_and_not_while_it_runs(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", hangs("two"))
    first = await person.says("one")
    async with streaming(person, "two", sessionId=first["sessionId"]) as stream:
        second = await stream.start()
        assert await refused(person, first["messageId"]) == (400, "not_last_turn")
        assert await refused(person, second["messageId"]) == (400, "reply_running")
        await stop(person, second["messageId"])
    assert await refused(person, first["messageId"]) == (400, "not_last_turn")
    await delete(person, second["messageId"])
    assert (await regenerate(person, first["messageId"]))["status"] == "complete", "now it is the last"


async def test_a_version_that_is_running_keeps_others_away(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers("one", says("tw", let_go, "o"))
    first = await person.says("one")
    async with regenerating(person, first["messageId"]) as stream:
        await stream.until_text("tw")
        assert await refused(person, first["messageId"]) == (400, "reply_running")
        let_go.set()
        await stream.done()


async def test_of_many_at_once_one_version_is_made(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers("one", says(let_go, "two"))
    first = await person.says("one")
    wishes = [asyncio.create_task(ask(person, first["messageId"], "regenerate")) for _ in range(6)]
    await vendor.until(lambda: len(vendor.requests) == 2)
    refusals: list[tuple[int, str]] = []
    for done in asyncio.as_completed(wishes):
        answer = await done
        if answer.status_code != 200:
            refusals.append(reason_of(answer))
        if len(refusals) == 5:
            let_go.set()
    assert refusals == [(400, "reply_running")] * 5
    assert len(vendor.requests) == 2
    assert len((await person.look(first["messageId"]))["versions"]) == 2


async def test_a_version_that_fails_or_says_nothing_is_not_shown_while_there_is_a_better_one(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers("good", fails(500), hangs(head=False), "later", says("x", finish="content_filter"), "last")
    first = await person.says("asked")
    failed = await ask(person, first["messageId"], "regenerate")
    assert reason_of(failed) == (500, "llm_unavailable")
    turn = failed.json()["turn"]
    assert (turn["sessionId"], turn["userMessageId"]) == (first["sessionId"], first["userMessageId"])
    assert turn["messageId"] != first["messageId"]
    async with regenerating(person, first["messageId"]) as stream:
        await stop(person, (await stream.start())["messageId"])
        await stream.done()
    second = await person.says("and?", sessionId=first["sessionId"])
    assert said(vendor) == ["asked", "good", "and?"]
    assert (await regenerate(person, second["messageId"]))["finishReason"] == "blocked"
    await person.says("so?", sessionId=first["sessionId"])
    assert said(vendor) == ["asked", "good", "so?"], "what is shown of a turn is blocked: it enters no prompt"


async def test_a_failed_turn_can_be_regenerated(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(fails(500), "good")
    failed = (await person.send("asked")).json()["turn"]
    second = await regenerate(person, failed["messageId"])
    assert second["reply"]["content"] == "good"
    assert (await person.look(failed["messageId"]))["status"] == "failed"
    assert (await person.look(second["messageId"]))["versions"] == [failed["messageId"], second["messageId"]]


async def test_a_version_has_its_own_feedback(person: Person) -> None:
    first = await person.says("asked")
    await rate(person, first["messageId"], "dislike", comment="not this one")
    second = await regenerate(person, first["messageId"])
    assert "feedback" not in await person.look(second["messageId"])
    assert (await person.look(first["messageId"]))["feedback"]["rating"] == "dislike"


# --- Keys -----------------------------------------------------------------------------------------------------------


async def test_a_wish_repeated_with_its_key_is_the_same_wish(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", "two")
    first = await person.says("asked")
    second = await regenerate(person, first["messageId"], clientMessageId="again")
    for message_id in (first["messageId"], second["messageId"]):
        assert await regenerate(person, message_id, clientMessageId="again") == {**second, "replayed": True}
    by_header = await person.http.post(
        f"/v1/chat/message/{first['messageId']}/regenerate",
        headers={**person.bearer, "Idempotency-Key": "again"},
    )
    assert by_header.json()["data"]["messageId"] == second["messageId"]
    async with regenerating(person, first["messageId"], clientMessageId="again") as stream:
        start = await stream.start()
        await stream.done()
    assert (start["messageId"], start["replayed"], stream.content) == (second["messageId"], True, "two")
    assert len(vendor.requests) == 2


async def test_many_wishes_at_once_under_one_key_are_one(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers("one", says(let_go, "two"))
    first = await person.says("asked")
    wishes = [asyncio.create_task(regenerate(person, first["messageId"], clientMessageId="again")) for _ in range(6)]
    await vendor.until(lambda: len(vendor.requests) == 2)
    let_go.set()
    answers = await asyncio.gather(*wishes)
    assert len({answer["messageId"] for answer in answers}) == 1
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert len(vendor.requests) == 2


async def test_a_key_of_something_else_is_a_mismatch(person: Person, vendor: LoopbackVendor) -> None:
    first = await person.says("asked", clientMessageId="send")
    other = await person.says("elsewhere")
    assert await refused(person, first["messageId"], clientMessageId="send") == (400, "idempotency_mismatch")
    await regenerate(person, first["messageId"], clientMessageId="wish")
    assert await refused(person, other["messageId"], clientMessageId="wish") == (400, "idempotency_mismatch")
    mismatch = await refused(person, first["messageId"], clientMessageId="wish", model="loopback-1")
    assert mismatch == (400, "idempotency_mismatch")
    for content in ("asked", "other"):
        answer = await person.send(content, sessionId=first["sessionId"], clientMessageId="wish")
        assert reason_of(answer) == (400, "idempotency_mismatch")
    assert len(vendor.requests) == 3


async def test_a_failed_version_is_begun_again_by_its_key(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", fails(500), "two")
    first = await person.says("asked")
    failed = await ask(person, first["messageId"], "regenerate", json={"clientMessageId": "again"})
    second = await regenerate(person, first["messageId"], clientMessageId="again")
    assert second["messageId"] == failed.json()["turn"]["messageId"], "under its own id"
    assert (second["reply"]["content"], second["replayed"]) == ("two", False)
    assert len((await person.look(first["messageId"]))["versions"]) == 2


async def test_what_is_refused_makes_no_version_and_calls_no_vendor(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(sqlite_url, llm=llm(vendor), limits={"sends_per_minute": 2}))
    person, mallory = await api.login(), await api.login("dev:mallory")
    sent = await person.says("asked")
    message_id = sent["messageId"]
    for foreign in (message_id, "0" * 32, "nonsense"):
        assert await refused(mallory, foreign) == (404, "message_not_found")
    assert await refused(person, sent["userMessageId"]) == (404, "message_not_found")
    assert await refused(person, message_id, model="unknown") == (400, "model_unknown")
    assert await refused(person, message_id, clientMessageId="a b") == (400, "client_message_id_invalid")
    assert await refused(person, message_id, clientMessageId=5) == (400, "invalid_request")
    header = {**person.bearer, "Idempotency-Key": "one"}
    path = f"/v1/chat/message/{message_id}/regenerate"
    differing = await api.http.post(path, json={"clientMessageId": "two"}, headers=header)
    assert reason_of(differing) == (400, "idempotency_mismatch")
    assert (await regenerate(person, message_id, model="loopback-1"))["model"] == "loopback-1"
    assert await refused(person, message_id) == (429, "too_many_sends"), "a version counts as a send"
    assert len(vendor.requests) == 2


@pytest.mark.parametrize("body", [None, b"", b"{}", b"null"])
async def test_a_wish_needs_no_body(guest: Person, body: bytes | None) -> None:
    first = await streamed(guest, "asked")
    headers = {**guest.bearer, **({} if body is None else {"Content-Type": "application/json"})}
    path = f"/v1/chat/message/{first.events[0].data['messageId']}/regenerate"
    answer = await guest.http.post(path, content=body, headers=headers)
    assert answer.json()["data"]["status"] == "complete"


# --- Two instances --------------------------------------------------------------------------------------------------


async def test_the_rules_of_versions_hold_across_instances(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    let_go = asyncio.Event()
    vendor.answers("one", says("tw", let_go, "o"), fails(500), "three")
    settings = settings_for(any_database, llm=llm(vendor), http={"reply_wait": 5})
    here, there = await serve(settings), await serve(settings)
    person = await here.login()
    elsewhere = Person(there.http, person.token, person.user)
    first = await person.says("asked")
    async with regenerating(person, first["messageId"], clientMessageId="again") as stream:
        await stream.until_text("tw")
        assert await refused(elsewhere, first["messageId"]) == (400, "reply_running")
        attached = asyncio.create_task(regenerate(elsewhere, first["messageId"], clientMessageId="again"))
        let_go.set()
        await stream.done()
    second = await attached
    assert (second["reply"]["content"], second["replayed"]) == ("two", True)
    failed = await ask(person, first["messageId"], "regenerate", json={"clientMessageId": "third"})
    third = await regenerate(elsewhere, first["messageId"], clientMessageId="third")
    assert third["messageId"] == failed.json()["turn"]["messageId"]
    for each in (person, elsewhere):
        shown = await each.look(third["messageId"])
        assert (shown["content"], len(shown["versions"])) == ("three", 3)
    assert len(vendor.requests) == 4


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "unsaved"])
async def test_of_versions_and_attempts_that_begin_at_once_one_is_made(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, shared_redis: RedisServer, saved: bool
) -> None:
    settings = settings_for(any_database, llm=llm(vendor), redis={"url": shared_redis.url})
    here, there = await serve(settings), await serve(settings)
    person = await here.login()
    elsewhere = Person(there.http, person.token, person.user)
    data_of(await person.http.put("/v1/user/settings", json={"saveHistory": saved}, headers=person.bearer))
    made: list[bool] = []
    for number in range(10):
        let_go = asyncio.Event()
        vendor.answers(fails(500), says(let_go, "good"))
        key = f"key-{number}"
        failed = (await person.send("asked", clientMessageId=key)).json()["turn"]["messageId"]
        wishes = [
            asyncio.create_task(ask(elsewhere, failed, "regenerate")),
            asyncio.create_task(person.send("asked", clientMessageId=key)),
        ]
        [refusal], winner = await asyncio.wait(wishes, return_when=asyncio.FIRST_COMPLETED)
        assert reason_of(refusal.result()) == (400, "reply_running")
        let_go.set()
        won = data_of(await winner.pop())
        assert won["reply"]["content"] == "good"
        made.append(won["messageId"] == failed)
        again = data_of(await person.send("asked", clientMessageId=key))
        assert (again["messageId"], again["replayed"]) == (failed, made[-1])
    assert len(vendor.requests) == 30 - sum(made)
