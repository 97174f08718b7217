"""What a user used today, over HTTP: accepted sends, tokens, audio; and what does not count."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL

from tests.fixtures.recordings import wav
from tests.fixtures.service import Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.speech import RATE, spoken
from tests.fixtures.streams import regenerate, stop, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, resets, says
from tests.integration.test_document import llm
from tests.integration.uploading import whisper

SHANGHAI = ZoneInfo("Asia/Shanghai")
NO_LIMITS = {"messagesLimit": None, "tokensLimit": None, "audioSecondsLimit": None}


async def used(person: Person) -> dict[str, Any]:
    answer = await person.get("/v1/user/usage")
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(data_of(answer))


async def messages_used(person: Person) -> int:
    return int((await used(person))["messagesUsed"])


@pytest.fixture
async def person(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> Person:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    someone: Person = await api.login()
    return someone


async def test_a_day_begins_with_nothing_and_says_when_it_is_over(person: Person) -> None:
    before = datetime.now(UTC)
    told = await used(person)
    numbers = {"messagesUsed": 0, "inputTokens": 0, "outputTokens": 0, "audioSeconds": 0}
    assert told == {"day": told["day"], **numbers, **NO_LIMITS, "resetAt": told["resetAt"]}
    assert told["day"] in {at.astimezone(SHANGHAI).date().isoformat() for at in (before, datetime.now(UTC))}
    reset = datetime.fromisoformat(told["resetAt"])
    assert reset.astimezone(SHANGHAI).isoformat().endswith("T00:00:00+08:00")
    assert timedelta() < reset - before <= timedelta(days=1)
    assert told["resetAt"].endswith("Z")


async def test_a_message_counts_with_its_tokens_and_each_further_reply_as_well(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers("one", "anew", fails(500), "whole")
    first = await person.says("hello", clientMessageId="k-1")
    again = await regenerate(person, first["messageId"])
    spent = [first["usage"], again["usage"]]
    told = await used(person)
    assert told["messagesUsed"] == 2
    for name in ("inputTokens", "outputTokens"):
        assert told[name] == sum(usage[name] for usage in spent) > 0
    assert (await person.says("hello", clientMessageId="k-1"))["replayed"]
    assert await used(person) == told, "a replay costs nothing"
    assert (await person.send("fails", clientMessageId="k-2")).status_code == 500
    assert await messages_used(person) == 3
    whole = await person.says("fails", clientMessageId="k-2")
    last = await used(person)
    assert last["messagesUsed"] == 4, "a restart counts as a send"
    assert last["inputTokens"] == told["inputTokens"] + whole["usage"]["inputTokens"]


async def test_what_is_refused_does_not_count(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", "two")
    first = await person.says("hello", clientMessageId="k-1")
    await person.says("more", sessionId=first["sessionId"])
    refused = [
        await person.send(""),
        await person.send("x", sessionId="0" * 32),
        await person.send("x", model="gpt-99"),
        await person.send("other", clientMessageId="k-1"),
        await person.http.post(f"/v1/chat/message/{first['messageId']}/regenerate", headers=person.bearer),
    ]
    assert {answer.status_code for answer in refused} == {400, 404}
    assert await messages_used(person) == 2


async def test_unsaved_turns_count_too(person: Person, vendor: LoopbackVendor) -> None:
    await person.http.put("/v1/user/settings", json={"saveHistory": False}, headers=person.bearer)
    vendor.answers("one", "two")
    first = await person.says("hidden")
    second = await person.says("hidden too", sessionId=first["sessionId"])
    told = await used(person)
    assert told["messagesUsed"] == 2
    assert told["outputTokens"] == first["usage"]["outputTokens"] + second["usage"]["outputTokens"]


async def test_what_a_silent_vendor_took_is_estimated_marked_wherever_it_shows_and_counted_like_any_other(
    person: Person, vendor: LoopbackVendor
) -> None:
    """The system prompt and all earlier turns are read again each time, so an estimate grows with the history."""
    vendor.answers(says("一个回答", counted=False), says("two", counted=False), "counted", hangs("so far"))
    first = await person.says("你好")
    assert first["usage"] == {"inputTokens": 6, "outputTokens": 8, "estimated": True}
    session = first["sessionId"]
    done = (await streamed(person, "and?", sessionId=session)).events[-1].data
    assert done["usage"] == {"inputTokens": 6 + 8 + 5, "outputTokens": 5, "estimated": True}
    counted = await person.says("counted", sessionId=session)
    assert counted["usage"] == {"inputTokens": 7, "outputTokens": 5}, "no mark where there is nothing to mark"
    async with streaming(person, "stop", sessionId=session) as stream:
        started = await stream.start()
        await stream.until_text("so far")
        stopped = await stop(person, started["messageId"])
        assert (await stream.done())["usage"] == stopped["usage"]
    assert (stopped["status"], stopped["usage"]["estimated"], stopped["usage"]["outputTokens"]) == ("stopped", True, 6)
    wanted = [first["usage"], done["usage"], counted["usage"], stopped["usage"]]
    items = data_of(await person.get(f"/v1/chat/history?sessionId={session}"))["items"]
    assert [item["usage"] for item in items if item["role"] == "assistant"] == wanted
    assert (await person.look(first["messageId"]))["usage"] == first["usage"]
    exported = (await person.get("/v1/user/export")).json()["sessions"][0]["messages"]
    assert [item["usage"] for item in exported if item["role"] == "assistant"] == wanted
    assert (await person.get("/v1/user/export?format=markdown")).text.count("token（估算）") == 3
    told = await used(person)
    for name in ("inputTokens", "outputTokens"):
        assert told[name] == sum(usage[name] for usage in wanted)


async def test_what_failed_before_it_said_anything_took_nothing_and_what_failed_later_did(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(fails(500), resets("half"))
    silent, cut = [(await person.send("hi")).json()["turn"]["messageId"] for _ in range(2)]
    assert "usage" not in await person.look(silent)
    assert (await person.look(cut))["usage"] == {"inputTokens": 5, "outputTokens": 5, "estimated": True}
    told = await used(person)
    assert (told["messagesUsed"], told["inputTokens"], told["outputTokens"]) == (2, 5, 5)


async def test_an_estimate_of_an_unsaved_turn_counts_on_the_day(person: Person, vendor: LoopbackVendor) -> None:
    await person.http.put("/v1/user/settings", json={"saveHistory": False}, headers=person.bearer)
    vendor.answers(says("half", counted=False))
    usage = (await person.says("hidden"))["usage"]
    assert usage["estimated"] is True
    told = await used(person)
    assert (told["inputTokens"], told["outputTokens"]) == (usage["inputTokens"], usage["outputTokens"])


async def test_the_keyless_model_is_a_vendor_that_says_nothing_of_tokens(quick_api: Api) -> None:
    person = await quick_api.login("dev:keyless-usage")
    usage = (await person.says("hello"))["usage"]
    assert usage["estimated"] is True
    told = await used(person)
    assert (told["inputTokens"], told["outputTokens"]) == (usage["inputTokens"], usage["outputTokens"])


async def test_many_sends_at_once_all_count(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(*["an answer"] * 20)
    answers = await asyncio.gather(*(person.says(f"message {number}") for number in range(20)))
    told = await used(person)
    assert told["messagesUsed"] == 20
    assert told["inputTokens"] == sum(answer["usage"]["inputTokens"] for answer in answers)


async def test_audio_counts_once_it_was_understood_and_as_long_as_it_is(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    person = await (await serve(settings_for(any_database, asr=whisper(vendor)))).login()
    vendor.answers(
        fails(200, {"text": "hi", "duration": 99}), fails(200, {"text": " "}), fails(400), fails(200, {"text": "ho"})
    )
    lengths = (1.5, 1.6, 1.7, 1.0304)
    recordings = [wav(spoken()[: round(seconds * RATE)]) for seconds in lengths]
    statuses = [(await person.speaks(recording)).status_code for recording in recordings]
    assert statuses == [200, 400, 400, 200]
    assert reason_of(await person.speaks(b"no sound")) == (400, "audio_unsupported")
    told = await used(person)
    assert (told["audioSeconds"], told["messagesUsed"]) == (2.53, 0)


async def test_the_day_is_the_persons_own(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one")
    await person.says("hello")
    other = await Api(person.http, str(person.http.base_url)).login("dev:other")
    assert await messages_used(other) == 0
    anonymous = await person.http.get("/v1/user/usage")
    assert reason_of(anonymous) == (401, "token_missing")


async def test_looking_at_it_counts_as_a_read(sqlite_url: URL, serve: Serve) -> None:
    person = await (await serve(settings_for(sqlite_url, limits={"reads_per_minute": 1}))).login()
    await used(person)
    assert reason_of(await person.get("/v1/user/usage")) == (429, "too_many_reads")


async def test_the_zone_is_the_operators(sqlite_url: URL, serve: Serve) -> None:
    person = await (await serve(settings_for(sqlite_url, limits={"day_zone": "Pacific/Kiritimati"}))).login()
    told = await used(person)
    assert told["resetAt"].endswith("T10:00:00Z"), "midnight 14 hours ahead of UTC"
