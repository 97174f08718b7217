"""`POST /v1/ai/speech-to-text` over a real socket: what is asked of an upload, and what is taken in of a bad one."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import URL

from chatassist.domain.audio import AudioKind
from tests.fixtures.logs import RUN
from tests.fixtures.recordings import REFUSED, Made, wav
from tests.fixtures.service import Answer, Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.speech import RATE, encoded, recording, spoken
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails, hangs, sends

PATH = "/v1/ai/speech-to-text"
KEY = "sk-loopback-key-1234"
SAID = "请帮我把明天的会议改到下午三点"
CAP = 1024 * 1024
B = "boundary-of-the-form"
FLAC = b"fLaC" + b"sound" * 20  # looks like a recording, and is never looked into


def speech() -> bytes:
    return recording(AudioKind.MP3)


def whisper(vendor: LoopbackVendor, **more: Any) -> dict[str, Any]:
    return {"engine": "whisper_api", "base_url": vendor.base_url, "api_key": KEY, "model": "whisper-1", **more}


@pytest.fixture
async def api(sqlite_url: URL, serve: Serve, vendor: LoopbackVendor) -> Api:
    """A service that transcribes by a vendor who always hears the same."""
    vendor.script = sends(json.dumps({"text": SAID}).encode(), content_type="application/json")
    RUN.keep_private(SAID, KEY)
    limits = {"audio_bytes": CAP, "speech_per_minute": 0}
    made: Api = await serve(settings_for(sqlite_url, asr=whisper(vendor), limits=limits))
    return made


@pytest.fixture
async def person(api: Api) -> Person:
    return await api.login()


def part(name: str, content: bytes, filename: str | None = None, *more: str) -> bytes:
    names = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    head = "\r\n".join([f"Content-Disposition: {names}", *more])
    return f"--{B}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{B}--\r\n".encode()


async def post(person: Person, body: Any, content_type: str = f"multipart/form-data; boundary={B}") -> Answer:
    return await person.http.post(PATH, content=body, headers={**person.bearer, "Content-Type": content_type})


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
    sound = wav(spoken())
    left = CAP - len(sound) - 8
    whole = sound + b"junk" + struct.pack("<I", left) + b"\r\n--".ljust(left, b"-")
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


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form(), "audio_missing"),
        (form(part("language", b"zh")), "audio_missing"),
        (form(part("audio", FLAC)), "audio_missing"),  # as a text: there is no file
        (form(part("file", FLAC, "a.flac")), "audio_missing"),
        (form(part("audio", FLAC, "a.flac"), part("audio", FLAC, "b.flac")), "form_invalid"),
        (form(part("audio", FLAC, "a.flac"), part("other", FLAC, "b.flac")), "form_invalid"),
        (form(part("audio", FLAC, "a.flac"), part("prompt", b"a"), part("prompt", b"b")), "form_invalid"),
        (form(part("audio", FLAC, "a.flac"), part("prompt", b"\xff\xfe")), "form_invalid"),
        (form(*(part(f"field-{number}", b"x") for number in range(9))), "form_invalid"),
        (form(part("audio", FLAC, "a.flac"), part("prompt", b"x" * 9000)), "form_invalid"),
        (
            form(part("audio", FLAC, "a.flac"), f"--{B}\r\nContent-Type: text/plain\r\n\r\nx\r\n".encode()),
            "form_invalid",
        ),
        (form(part("audio", FLAC, "a.flac", *(f"X-{number}: x" for number in range(50)))), "form_invalid"),
        (form(part("audio", FLAC, "a" * 20_000)), "form_invalid"),
        (part("audio", FLAC, "a.flac"), "form_invalid"),  # broken off
        (part("audio", FLAC, "a.flac")[:60], "form_invalid"),
        (b"", "form_invalid"),
        (b"nonsense", "form_invalid"),
        (FLAC, "form_invalid"),
        (form(part("audio", FLAC, "a.flac"), part("language", b"Chinese!")), "invalid_request"),
        (form(part("audio", FLAC, "a.flac"), part("language", b"zh" * 20)), "invalid_request"),
        (form(part("audio", FLAC, "a.flac"), part("prompt", b"x" * 1001)), "invalid_request"),
        (form(part("audio", FLAC, "a.flac"), part("prompt", b"a\0b")), "content_invalid"),
    ],
)
async def test_a_form_that_is_not_as_it_should_be(
    person: Person, vendor: LoopbackVendor, body: bytes, reason: str
) -> None:
    assert reason_of(await post(person, body)) == (400, reason)
    assert vendor.requests == []


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 500,
        f"multipart/mixed; boundary={B}",
        "multipart/form-data; boundary=another",
        "application/json",
        "application/x-www-form-urlencoded",
        "audio/mpeg",
        "",
        "nonsense",
    ],
)
async def test_what_is_sent_as_something_else(person: Person, content_type: str) -> None:
    answer = await post(person, form(part("audio", FLAC, "a.flac")), content_type)
    assert reason_of(answer) == (400, "form_invalid")


@pytest.mark.parametrize("charset", ["idna", "punycode", "unicode_escape", "rot13", "utf-16", "nonsense"])
async def test_a_charset_of_the_senders_choice_counts_for_nothing(person: Person, charset: str) -> None:
    body = form(part("audio", speech(), "a.flac"), part("prompt", b"xn--\\ud800"))
    answer = await post(person, body, f"multipart/form-data; charset={charset}; boundary={B}")
    assert data_of(answer)["text"] == SAID


async def test_a_bad_field_is_named_and_not_echoed(person: Person) -> None:
    answer = await person.speaks(FLAC, language="<script>")
    assert answer.json()["message"] == "请求参数错误：language"


# --- How much is taken in -------------------------------------------------------------------------------------------


async def test_a_recording_over_the_cap_is_refused_at_its_head_or_while_it_comes(
    person: Person, vendor: LoopbackVendor
) -> None:
    for size in (CAP + 1, 30_000_000):
        assert reason_of(await person.speaks(b"fLaC" + b"x" * (size - 4))) == (400, "audio_too_large")

    async def untold() -> AsyncIterator[bytes]:
        yield part("audio", b"", "a.flac").removesuffix(b"\r\n")
        for _ in range(300):
            yield b"x" * 100_000

    assert reason_of(await post(person, untold())) == (400, "audio_too_large")
    assert vendor.requests == []
    assert data_of(await person.speaks(speech()))["text"] == SAID, "the client goes on"


async def test_an_endless_form_without_a_file_is_refused_as_early(person: Person) -> None:
    async def endless(piece: bytes) -> AsyncIterator[bytes]:
        for _ in range(300):
            yield piece * 1000

    assert reason_of(await post(person, endless(b"x" * 100))) == (400, "form_invalid")
    assert reason_of(await post(person, endless(part("prompt", b"x")))) == (400, "form_invalid")


async def test_other_endpoints_keep_their_small_cap(person: Person) -> None:
    headers = {**person.bearer, "Content-Type": "application/json"}
    body = b'{"content":"x"}'.ljust(262_145)
    for path in ("/v1/chat/message", f"{PATH}/", "/v1/ai/nothing"):
        answer = await person.http.post(path, content=body, headers=headers)
        assert reason_of(answer) in ((400, "body_too_large"), (404, "not_found"))
    answer = await person.http.post("/v1/chat/message", content=body, headers=headers)
    assert reason_of(answer) == (400, "body_too_large")


async def test_who_is_not_logged_in_is_told_before_his_upload_is_read(api: Api) -> None:
    """The head is enough for an answer, and the connection is given up."""
    _, _, port = api.base_url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={B}\r\n"
    writer.write(f"{head}Content-Length: 1000000\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 2)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"reason":"token_missing"' in answer
    assert b"connection: close" in answer.lower()
    writer.write(b"x" * 1_000_000)
    assert await asyncio.wait_for(reader.read(), 2) == b"", "what still came was let go by, and then it hung up"
    writer.close()


async def test_an_ordinary_client_that_sends_it_all_reads_the_401(api: Api) -> None:
    answer = await api.http.post(PATH, files={"audio": ("a.flac", b"fLaC" + b"x" * (CAP - 4))})
    assert reason_of(answer) == (401, "token_missing")
    wrong = {"Authorization": "Bearer nonsense"}
    answer = await api.http.post(PATH, files={"audio": ("a.flac", b"x" * 30_000_000)}, headers=wrong)
    assert reason_of(answer) == (401, "token_invalid")


async def test_a_client_that_breaks_off_harms_nobody(
    person: Person, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, port = api.base_url.rpartition(":")
    _, writer = await asyncio.open_connection("127.0.0.1", int(port))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {person.token}\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary={B}\r\nContent-Length: 9999\r\n\r\n".encode())
    writer.write(part("audio", FLAC, "a.flac"))
    await writer.drain()
    writer.close()
    assert data_of(await person.speaks(speech()))["text"] == SAID
    assert "unhandled" not in caplog.messages


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


async def test_many_at_once_hold_so_many_bytes_and_no_more(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    """As bytes that came: who only announces them takes nothing, and who gives up gives them back."""
    vendor.script = fails(200, {"text": SAID})
    limits = {"audio_bytes": CAP, "speech_per_minute": 0}
    api = await serve(settings_for(sqlite_url, asr=whisper(vendor), limits=limits))
    person = await api.login()
    body = part("audio", bytes(CAP - 100), "a.wav")
    _, _, port = api.base_url.rpartition(":")
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {person.token}\r\n"
    head += f"Content-Type: multipart/form-data; boundary={B}\r\nContent-Length: {len(form(body))}\r\n\r\n"
    writers = []
    for sent in (*[body[:-100]] * 4, *[b""] * 20):
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(head.encode() + sent)
        writers.append(writer)

    async with asyncio.timeout(10):
        while (answer := await person.speaks(speech())).status_code == 200:
            pass  # until all that was sent has come
    assert reason_of(answer) == (429, "asr_busy")
    assert answer.headers["Retry-After"]
    for writer in writers:
        writer.close()
    async with asyncio.timeout(10):
        while (answer := await person.speaks(speech())).status_code == 429:
            pass
    assert data_of(answer)["text"] == SAID


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
