"""Uploads of recordings over a real socket: what is asked of a form, and how much is taken in of a bad one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL

from tests.fixtures.service import Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails
from tests.integration.uploading import (
    CAP,
    FLAC,
    PATH,
    SAID,
    B,
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


# --- The form -------------------------------------------------------------------------------------------------------


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
