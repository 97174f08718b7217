"""Voices at a vendor: what is sent, what counts as a recording, and what each failure becomes."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.tts.speech_api import SpeechApiSynthesiser
from chatassist.adapters.vendor import SpeechRoute
from chatassist.domain.audio import Audio, AudioKind
from chatassist.domain.errors import TtsTimeout, TtsUnavailable
from chatassist.domain.ports.tts import Script
from tests.fixtures.logs import RUN
from tests.fixtures.speech import recording
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, drips, fails, floods, hangs, redirects, resets, sends
from tests.integration.calling import calling

KEY = "sk-loopback-key-1234"
TELLTALE = "telltale-of-the-vendor"
WORDS = "请把这句只属于我的话念出来"
SCRIPT = Script(text=WORDS)
MP3 = b"\xff\xfb\x90\x64" + b"\0" * 60
ROUTE = SpeechRoute(model="tts-1", voice="alloy")


@pytest.fixture
async def voice(vendor: LoopbackVendor) -> AsyncIterator[SpeechApiSynthesiser]:
    RUN.keep_private(KEY, TELLTALE, WORDS)
    made = SpeechApiSynthesiser(calling(vendor.base_url, KEY), ROUTE, silence=0.5)
    yield made
    await made.aclose()


def plays(data: bytes = MP3, content_type: str = "audio/mpeg") -> Behaviour:
    return sends(data, content_type=content_type)


# --- What is sent ---------------------------------------------------------------------------------------------------


async def test_words_voice_and_format_are_sent(voice: SpeechApiSynthesiser, vendor: LoopbackVendor) -> None:
    vendor.answers(plays())
    assert await voice.synthesise(SCRIPT) == Audio(data=MP3, kind=AudioKind.MP3)
    request = vendor.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/audio/speech")
    assert request.body == {"model": "tts-1", "voice": "alloy", "input": WORDS, "response_format": "mp3"}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert "application/json" not in request.headers["accept"]


async def test_a_voice_and_a_speed_of_the_callers_own(voice: SpeechApiSynthesiser, vendor: LoopbackVendor) -> None:
    vendor.answers(plays())
    await voice.synthesise(Script(text=WORDS, voice="nova", speed=1.5))
    assert (vendor.requests[0].body["voice"], vendor.requests[0].body["speed"]) == ("nova", 1.5)


@pytest.mark.parametrize(
    ("kind", "path", "header"),
    [
        ("openai", "/v1/audio/speech", ("authorization", f"Bearer {KEY}")),
        ("siliconflow", "/v1/audio/speech", ("authorization", f"Bearer {KEY}")),
        ("zhipu", "/v1/audio/speech", ("authorization", f"Bearer {KEY}")),
    ],
)
async def test_each_vendor_is_asked_as_its_row_says(
    vendor: LoopbackVendor, kind: str, path: str, header: tuple[str, str]
) -> None:
    route = CATALOGUE[kind].speech
    assert route is not None
    voice = SpeechApiSynthesiser(calling(vendor.base_url, KEY, kind), route, silence=1)
    vendor.answers(plays(recording(AudioKind.WAV), "audio/wav"))
    assert (await voice.synthesise(SCRIPT)).kind is AudioKind.WAV
    await voice.aclose()
    request = vendor.requests[0]
    assert (request.path, request.headers[header[0]]) == (path, header[1])
    sent = {name: request.body[name] for name in ("model", "voice", "response_format")}
    assert sent == {"model": route.model, "voice": route.voice, "response_format": route.format}


async def test_azure_is_shown_the_key_and_told_the_version_in_its_own_way(vendor: LoopbackVendor) -> None:
    address = vendor.base_url.removesuffix("/v1") + "/openai/deployments/tts"
    access = calling(address, KEY, "azure")
    voice = SpeechApiSynthesiser(access, ROUTE, silence=1)
    vendor.answers(plays())
    await voice.synthesise(SCRIPT)
    await voice.aclose()
    path, _, query = vendor.requests[0].path.partition("?")
    assert path == "/openai/deployments/tts/audio/speech"
    assert query.startswith("api-version=")
    assert vendor.requests[0].headers["api-key"] == KEY
    assert "authorization" not in vendor.requests[0].headers


# --- What is a recording --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AudioKind))
@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "audio/whatever"])
async def test_the_bytes_say_what_a_recording_is(
    voice: SpeechApiSynthesiser, vendor: LoopbackVendor, kind: AudioKind, content_type: str
) -> None:
    data = recording(kind)
    vendor.answers(sends(data[:100], data[100:], content_type=content_type or f"audio/{kind}"))
    assert await voice.synthesise(SCRIPT) == Audio(data=data, kind=kind)


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


HTML = f"<!DOCTYPE html><html>{TELLTALE}</html>".encode()


@pytest.mark.parametrize(
    ("body", "content_type", "retry_after"),
    [
        (HTML, "text/html", 10),
        (HTML, "audio/mpeg", 10),
        (MP3, "text/html", 10),
        (MP3, "text/plain; charset=utf-8", 10),
        (MP3, "application/json", 10),
        (b"", "audio/mpeg", 10),
        (b"\0" * 1000, "audio/pcm", 10),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "image/png", 10),
        (b"[" * 100_000, "application/json", 10),
        (as_json({"audio": TELLTALE}), "application/json", 10),
        (as_json({"error": {"message": TELLTALE}}), "application/json", 10),
        (as_json({"error": {"message": TELLTALE, "code": "insufficient_user_quota"}}), "application/json", None),
        (as_json({"error": {"message": TELLTALE, "code": "invalid_api_key"}}), "audio/mpeg", None),
        (as_json({"code": 50000, "message": TELLTALE, "data": None}), "application/json", 10),
        (as_json({"error": {"message": TELLTALE, "code": 429}}), "application/json", 10),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
async def test_what_is_no_recording_is_never_taken_for_one(
    voice: SpeechApiSynthesiser, vendor: LoopbackVendor, body: bytes, content_type: str, retry_after: float | None
) -> None:
    vendor.answers(plays(body, content_type))
    with pytest.raises(TtsUnavailable) as caught:
        await voice.synthesise(SCRIPT)
    assert TELLTALE not in str(caught.value)
    assert caught.value.retry_after == retry_after
    assert len(vendor.requests) == 1


async def test_a_recording_without_end_is_cut(voice: SpeechApiSynthesiser, vendor: LoopbackVendor) -> None:
    vendor.answers(floods(MP3 * 2000))
    with pytest.raises(TtsUnavailable, match="too large"):
        await voice.synthesise(SCRIPT)
    await vendor.until(lambda: vendor.busy == 0)


# --- Failures -------------------------------------------------------------------------------------------------------

VOICE = {"error": {"message": f"no such voice {TELLTALE}", "type": "invalid_request_error", "param": "voice"}}


@pytest.mark.parametrize(
    ("behaviour", "error", "retry_after"),
    [
        (fails(401, {"error": {"message": f"Incorrect API key: {KEY}"}}), TtsUnavailable, None),
        (fails(401, "Invalid token"), TtsUnavailable, None),
        (fails(402), TtsUnavailable, None),
        (fails(403, TELLTALE), TtsUnavailable, None),
        (fails(404, {"error": {"code": "model_not_found"}}), TtsUnavailable, None),
        (fails(429, {"error": {"code": "insufficient_user_quota"}}), TtsUnavailable, None),
        (fails(429, headers={"Retry-After": "7"}), TtsUnavailable, 7),
        (fails(429), TtsUnavailable, 10),
        (fails(413), TtsUnavailable, None),
        (fails(400, {"error": {"code": "content_filter"}}), TtsUnavailable, None),
        (fails(500, TELLTALE), TtsUnavailable, 10),
        (fails(503, {"code": 50505, "message": TELLTALE, "data": None}), TtsUnavailable, 10),
        (redirects("http://127.0.0.1:9/v1/audio/speech"), TtsUnavailable, None),
        (hangs(head=False), TtsTimeout, 5),
        (hangs(), TtsTimeout, 5),
        (resets(), TtsUnavailable, 10),
        (sends(MP3, content_type="audio/mpeg", whole=False), TtsUnavailable, 10),
        (sends(MP3, content_type="audio/mpeg", headers={"Content-Encoding": "gzip"}), TtsUnavailable, 10),
    ],
)
async def test_each_failure_becomes_one_of_ours_and_costs_one_call(
    voice: SpeechApiSynthesiser,
    vendor: LoopbackVendor,
    behaviour: Behaviour,
    error: type[TtsUnavailable | TtsTimeout],
    retry_after: float | None,
) -> None:
    vendor.answers(behaviour)
    with pytest.raises(error) as caught:
        await voice.synthesise(SCRIPT)
    assert caught.value.retry_after == retry_after
    assert TELLTALE not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(vendor.requests) == 1


async def test_format_and_speed_that_a_vendor_refuses_are_left_out(
    voice: SpeechApiSynthesiser, vendor: LoopbackVendor
) -> None:
    vendor.answers(fails(400, {"error": {"message": "speed is not supported"}}), plays())
    assert (await voice.synthesise(Script(text=WORDS, speed=1.5))).data == MP3
    assert vendor.requests[1].body == {"model": "tts-1", "voice": "alloy", "input": WORDS}


async def test_a_voice_that_a_vendor_refuses_costs_two_calls_and_is_told(
    voice: SpeechApiSynthesiser, vendor: LoopbackVendor
) -> None:
    vendor.script = fails(400, VOICE)
    with pytest.raises(TtsUnavailable) as caught:
        await voice.synthesise(Script(text=WORDS, voice="nobody"))
    assert len(vendor.requests) == 2
    assert caught.value.retry_after is None
    assert TELLTALE not in str(caught.value)


async def test_giving_up_on_a_vendor_that_drips_ends_the_call_and_leaks_nothing(
    voice: SpeechApiSynthesiser, vendor: LoopbackVendor
) -> None:
    vendor.answers(drips(MP3, every=0.02, times=1000))
    call = asyncio.ensure_future(voice.synthesise(SCRIPT))
    await vendor.until(lambda: vendor.busy == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await vendor.until(lambda: vendor.busy == 0 and vendor.open_connections == 0)
    assert vendor.requests[0].abandoned


async def test_a_connection_is_used_again(voice: SpeechApiSynthesiser, vendor: LoopbackVendor) -> None:
    for _ in range(3):
        vendor.answers(plays())
        await voice.synthesise(SCRIPT)
    assert vendor.connections_ever == 1


@pytest.mark.parametrize("key", ["schlüssel-äöü", "with\nnewline"])
async def test_a_key_that_cannot_be_sent(vendor: LoopbackVendor, key: str) -> None:
    voice = SpeechApiSynthesiser(calling(vendor.base_url, key), ROUTE, silence=1)
    with pytest.raises(TtsUnavailable) as caught:
        await voice.synthesise(SCRIPT)
    await voice.aclose()
    assert key not in str(caught.value)
    assert caught.value.retry_after is None


async def test_nobody_there() -> None:
    access = calling("http://127.0.0.1:9/v1", KEY, "openai_compatible")
    voice = SpeechApiSynthesiser(access, ROUTE, silence=1)
    with pytest.raises(TtsUnavailable):
        await voice.synthesise(SCRIPT)
    await voice.aclose()


async def test_words_are_not_logged(
    voice: SpeechApiSynthesiser, vendor: LoopbackVendor, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(call: Call) -> None:
        await fails(400, {"error": {"message": str(call.request.body)}})(call)

    vendor.script = echo
    with pytest.raises(TtsUnavailable) as caught:
        await voice.synthesise(SCRIPT)
    assert WORDS not in caplog.text + repr(caught.value)
