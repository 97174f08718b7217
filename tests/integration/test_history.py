"""A session's history over HTTP, page by page."""

import asyncio
import re
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.lists import HISTORY, contents, history, look
from tests.fixtures.service import Api, Person, Serve, reason_of, settings_for
from tests.fixtures.streams import ask, delete, rate, regenerate, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, says
from tests.integration.test_document import llm


async def a_talk(person: Person, vendor: LoopbackVendor, turns: int) -> str:
    vendor.answers(*(f"answer {number}" for number in range(turns)))
    session = ""
    for number in range(turns):
        session = (await person.says(f"question {number}", sessionId=session))["sessionId"]
    return session


async def test_a_turn_is_a_question_and_the_reply_as_a_message_object(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("你好 😀")
    sent = await person.says(" 你好 😀\n'%' ")
    page = await history(person, sent["sessionId"])
    question, reply = page.pop("items")
    assert page == {"hasMoreBefore": False, "hasMoreAfter": False}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", question.pop("time"))
    assert question == {
        "messageId": sent["userMessageId"],
        "sessionId": sent["sessionId"],
        "role": "user",
        "content": "你好 😀\n'%'",
        "status": "complete",
        "versions": [],
        "aiGenerated": False,
    }
    assert reply == await person.look(sent["messageId"])
    assert (reply["role"], reply["aiGenerated"], reply["versions"]) == ("assistant", True, [sent["messageId"]])


async def test_pages_fit_together_both_ways(person: Person, vendor: LoopbackVendor) -> None:
    session = await a_talk(person, vendor, 5)
    everything = (await history(person, session, limit=100))["items"]
    assert [item["role"] for item in everything] == ["user", "assistant"] * 5
    for limit in (1, 3, 4, 10):
        back = await history(person, session, limit=limit)
        found = back["items"]
        assert back["hasMoreAfter"] is False
        while back["hasMoreBefore"]:
            back = await history(person, session, limit=limit, before=found[0]["messageId"])
            assert back["hasMoreAfter"] is True
            found = back["items"] + found
        assert found == everything
        forth: dict[str, Any] = {"hasMoreAfter": True}
        found = everything[:1]
        while forth["hasMoreAfter"]:
            forth = await history(person, session, limit=limit, after=found[-1]["messageId"])
            assert forth["hasMoreBefore"] is True
            found = found + forth["items"]
        assert found == everything
    nothing = await history(person, session, before=everything[0]["messageId"])
    assert nothing == {"items": [], "hasMoreBefore": False, "hasMoreAfter": True}


async def test_versions_failures_and_ratings_show(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("first", "second", fails(500), fails(500), fails(500))
    sent = await person.says("hello")
    session = sent["sessionId"]
    again = await regenerate(person, sent["messageId"])
    await rate(person, again["messageId"], "like", comment="好")
    await ask(person, again["messageId"], "regenerate")
    [_, reply] = (await history(person, session))["items"]
    assert (reply["content"], reply["messageId"], len(reply["versions"])) == ("second", again["messageId"], 3)
    assert reply["versions"][:2] == [sent["messageId"], again["messageId"]]
    assert reply["feedback"] == {"rating": "like", "comment": "好"}
    vendor.answers(fails(500), fails(500), fails(500), "fine")
    await person.send("fails", sessionId=session)
    [_, _, question, failed] = (await history(person, session))["items"]
    assert (question["content"], failed["status"], failed["content"]) == ("fails", "failed", "")
    assert failed["reason"] == "llm_unavailable"
    for version in reply["versions"]:
        assert contents(await history(person, session, before=version)) == ["hello"]
        assert contents(await history(person, session, after=version)) == ["fails", ""]
    await delete(person, sent["messageId"])
    assert contents(await history(person, session)) == ["fails", ""]
    for gone in (sent["messageId"], sent["userMessageId"], again["messageId"]):
        assert reason_of(await look(person, HISTORY, sessionId=session, before=gone)) == (400, "bad_cursor")


async def test_a_reply_that_is_being_made_shows_its_text_so_far(person: Person, vendor: LoopbackVendor) -> None:
    let_go = asyncio.Event()
    vendor.answers(says("so far", let_go))
    async with streaming(person, "hello") as stream:
        session = (await stream.start())["sessionId"]
        await stream.until_text("so far")
        answer = await look(person, HISTORY, sessionId=session)
        [_, reply] = answer.json()["data"]["items"]
        assert (reply["status"], reply["content"]) == ("running", "so far")
        assert "ETag" not in answer.headers
        assert answer.headers["Cache-Control"] == "private, no-cache"
        let_go.set()
        await stream.done()
    answer = await look(person, HISTORY, sessionId=session)
    assert answer.json()["data"]["items"][1]["status"] == "complete"
    assert "ETag" in answer.headers


async def test_a_page_shows_replies_that_run_at_once(person: Person, vendor: LoopbackVendor) -> None:
    session = await a_talk(person, vendor, 1)
    vendor.answers(hangs("one"), hangs("two"))
    async with streaming(person, "a", sessionId=session) as first, streaming(person, "b", sessionId=session) as second:
        await first.until_text("one")
        await second.until_text("two")
        assert contents(await history(person, session)) == ["question 0", "answer 0", "a", "one", "b", "two"]


async def test_both_anchors_none_that_is_known_and_no_session_are_refused(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    alice, mallory = await api.login("dev:alice"), await api.login("dev:mallory")
    here, elsewhere, theirs = await alice.says("here"), await alice.says("there"), await mallory.says("mine")
    session, message = here["sessionId"], here["messageId"]
    both = await look(alice, HISTORY, sessionId=session, before=message, after=message)
    assert reason_of(both) == (400, "invalid_request")
    for anchor in (
        elsewhere["messageId"],
        theirs["messageId"],
        theirs["userMessageId"],
        session,
        "0" * 32,
        "",
        "x\x00",
    ):
        for side in ("before", "after"):
            answer = await look(alice, HISTORY, sessionId=session, **{side: anchor})
            assert reason_of(answer) == (400, "bad_cursor"), (anchor, side)
    for query in ({}, {"sessionId": ""}):
        answer = await look(alice, HISTORY, **query)
        assert (reason_of(answer), answer.json()["message"][-9:]) == ((400, "invalid_request"), "sessionId")
    answers = [
        await look(mallory, HISTORY, sessionId=one, **anchor)
        for one in (session, "0" * 32, "nonsense", "😀")
        for anchor in ({}, {"before": message}, {"after": "nonsense"})
    ]
    assert {reason_of(answer) for answer in answers} == {(404, "session_not_found")}
    assert len({answer.text.partition('"requestId"')[0] for answer in answers}) == 1, "and all alike"


@pytest.mark.parametrize("limit", ["0", "101", "", "ten"])
async def test_a_limit_is_a_number_from_1_to_100(quick_api: Api, limit: str) -> None:
    person = await quick_api.login()
    session = (await person.says("hello"))["sessionId"]
    assert reason_of(await look(person, HISTORY, sessionId=session, limit=limit)) == (400, "invalid_request")
