"""`POST /v1/ai/speech-to-text` over a real socket: what comes of a recording, good or bad, and of its engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import URL

from chatassist.domain.audio import AudioKind
from tests.fixtures.logs import RUN
from tests.fixtures.recordings import REFUSED, Made, padded, wav
from tests.fixtures.service import Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.speech import RATE, encoded, recording, spoken
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs
from tests.integration.uploading import (
    CAP,
    FLAC,
    KEY,
    PATH,
    SAID,
    form,
    part,
    post,
    service_that_hears,
    speech,
    whisper,
)


@pytest.fixture
async def api(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    return await service_that_hears(sqlite_url, serve, vendor)


@pytest.fixture
async def person(api: Api) -> Person:
    return await api.login()


# --- What succeeds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AudioKind))
async def test_real_recordings_of_every_kind_under_any_name(
    person: Person, vendor: LoopbackVendor, kind: AudioKind
) -> None:
    for name in ("tmp_1a2b3c.mp3", "录音.wav", "../../etc/passwd", "no-ending"):
        assert data_of(await person.speaks(recording(kind), name))["text"] == SAID
    (request,) = vendor.requests
    assert b'filename="audio.wav"' in request.body, "whatever came: not every vendor takes aac, amr or webm"
    assert b"RIFF" in request.body


async def test_the_language_is_the_engines_and_the_duration_that_of_the_sound(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(fails(200, {"text": "hi", "language": "en", "duration": 99}))
    data = data_of(await person.speaks(wav(spoken()[: 2 * RATE])))
    assert data == {"text": "hi", "language": "en", "duration": 2.0}
    assert data_of(await person.get("/v1/user/usage"))["audioSeconds"] == 2.0


async def test_a_phone_that_asks_again_is_told_what_was_heard_before(person: Person, vendor: LoopbackVendor) -> None:
    answers = await asyncio.gather(*(person.speaks(speech()) for _ in range(3)))
    answers.append(await person.speaks(speech(), "another-name.aac"))
    assert {data_of(answer)["text"] for answer in answers} == {SAID}
    assert len(vendor.requests) == 1
    data_of(await person.speaks(speech(), language="en"))
    assert len(vendor.requests) == 2, "that is another question"


async def test_a_vendor_that_takes_half_a_minute_is_asked_in_parts(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(*(fails(200, {"text": text}) for text in ("请把会议", "改到下午", "三点。")))
    api = await serve(settings_for(sqlite_url, asr={**whisper(vendor), "vendor": "zhipu"}))
    minute = np.resize(spoken(), 60 * RATE)
    data = data_of(await (await api.login()).speaks(encoded(minute, AudioKind.AMR)))
    assert data["text"] == "请把会议改到下午三点。"
    assert data["duration"] == pytest.approx(60, abs=0.2)
    sent = [len(request.body) / (2 * RATE) for request in vendor.requests]
    assert len(sent) == 3
    assert max(sent) < 30.1


@pytest.mark.parametrize(("given", "sent"), [("zh", "zh"), ("zh-CN", "zh"), ("EN_us", "en"), ("yue", "yue")])
async def test_the_hints_reach_the_engine(person: Person, vendor: LoopbackVendor, given: str, sent: str) -> None:
    data = data_of(await person.speaks(speech(), language=given, prompt=" 王小明的电话会议 ", unknown="is ignored"))
    assert data["language"] == sent
    assert f'name="language"\r\n\r\n{sent}\r\n'.encode() in vendor.requests[-1].body
    assert 'name="prompt"\r\n\r\n王小明的电话会议\r\n'.encode() in vendor.requests[-1].body


async def test_empty_hints_are_as_good_as_none(person: Person, vendor: LoopbackVendor) -> None:
    assert data_of(await person.speaks(speech(), language="", prompt=" "))["language"] is None
    assert b'name="language"' not in vendor.requests[-1].body
    assert b'name="prompt"' not in vendor.requests[-1].body


async def test_the_largest_recording_and_a_trickle_of_it_are_taken(person: Person, vendor: LoopbackVendor) -> None:
    whole = padded(wav(spoken()), CAP)
    assert len(whole) == CAP
    data_of(await person.speaks(whole))

    body = form(part("language", b"zh"), part("audio", recording(AudioKind.AMR), "a.flac"))

    async def byte_by_byte() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    assert data_of(await post(person, byte_by_byte()))["text"] == SAID
    assert len(vendor.requests) == 2


async def test_the_local_whisper_is_loaded_at_the_start_and_hears_an_upload(
    sqlite_url: URL, serve: Serve, tiny_whisper: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asr = {"engine": "whisper_local", "model": str(tiny_whisper)}
    api = await serve(settings_for(sqlite_url, asr=asr))
    async with asyncio.timeout(20):
        while "Whisper is loaded" not in caplog.messages:  # noqa: ASYNC110 - in a thread of its own
            await asyncio.sleep(0.01)
    data = data_of(await (await api.login()).speaks(recording(AudioKind.M4A), "recording.aac", language="en"))
    RUN.keep_private(data["text"])
    assert data["text"]
    assert (data["language"], data["duration"]) == ("en", pytest.approx(4.0, abs=1.2))


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "reason"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_recording_or_a_bad_one(
    person: Person, vendor: LoopbackVendor, made: Made, reason: str
) -> None:
    assert reason_of(await person.speaks(made(), "recording.mp3")) == (400, reason)
    assert vendor.requests == [], "no vendor is asked"


async def test_silk_is_told_which_formats_are_taken(person: Person) -> None:
    assert "mp3、wav 或 m4a" in (await person.speaks(b"\2#!SILK_V3" + bytes(99))).json()["message"]


async def test_the_operator_sets_how_long_a_recording_may_be(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.script = fails(200, {"text": SAID})
    api = await serve(settings_for(sqlite_url, asr=whisper(vendor), limits={"audio_seconds": 2}))
    person = await api.login()
    assert reason_of(await person.speaks(speech())) == (400, "audio_too_long")
    assert data_of(await person.speaks(wav(spoken()[: 2 * RATE])))["text"] == SAID


# --- What fails behind it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["", "  \n"])
async def test_nobody_speaks(person: Person, vendor: LoopbackVendor, said: str) -> None:
    vendor.answers(fails(200, {"text": said}))
    assert reason_of(await person.speaks(speech())) == (400, "audio_no_speech")


async def test_a_vendor_that_fails(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers(fails(503, {"error": {"message": KEY}}), fails(401, {"error": {"message": KEY}}))
    answers = [await person.speaks(speech()), await person.speaks(speech())]
    assert [reason_of(answer) for answer in answers] == [(500, "asr_unavailable")] * 2
    assert ["Retry-After" in answer.headers for answer in answers] == [True, False], "a wrong key stays wrong"
    assert all(KEY not in answer.text for answer in answers)


async def test_a_vendor_that_takes_too_long(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    vendor.answers(hangs(head=False))
    api = await serve(settings_for(sqlite_url, asr=whisper(vendor, deadline=0.2)))
    answer = await (await api.login()).speaks(speech())
    assert reason_of(answer) == (500, "asr_timeout")
    assert answer.headers["Retry-After"] == "5"
    await vendor.until(lambda: vendor.busy == 0)


async def test_no_engine(quick_api: Api) -> None:
    person = await quick_api.login()
    assert reason_of(await person.speaks(FLAC)) == (500, "asr_not_configured")
    assert reason_of(await person.speaks(b"")) == (400, "audio_empty"), "the recording is looked at first"


async def test_recordings_are_limited_per_user(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    vendor.script = fails(200, {"text": SAID})
    api = await serve(settings_for(sqlite_url, asr=whisper(vendor), limits={"speech_per_minute": 2}))
    alice, bob = await api.login("dev:alice"), await api.login("dev:bob")
    answers = await asyncio.gather(*(alice.speaks(speech()) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert reason_of(refused) == (429, "too_many_transcriptions")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert data_of(await bob.speaks(speech()))["text"] == SAID


async def test_the_published_description_shows_the_form(quick_api: Api) -> None:
    described = (await quick_api.http.get("/openapi.json")).json()["paths"][PATH]["post"]
    schema = described["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["audio"]
    assert set(schema["properties"]) == {"audio", "language", "prompt"}
    assert schema["properties"]["audio"]["format"] == "binary"
    assert described["security"]
