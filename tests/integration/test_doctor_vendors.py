"""What `chatassist doctor` says about several AI vendors, and about all that one of them can do."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatassist.entrypoints.cli import app
from tests.fixtures.logs import RUN
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, fails, hangs, says, sends
from tests.integration.test_doctor import HASTY, KEY, TELLTALE, Doctor, doctor, on_whisper

__all__ = ["doctor"]  # the fixture

FILE = """
[[vendor]]
name = "main"
kind = "openai"
base_url = "{0}"
api_key_env = "MAIN_KEY"
models = [{{ id = "m-1" }}, {{ id = "m-2" }}]

[[vendor]]
name = "spare"
kind = "zhipu"
base_url = "{1}"
api_key_env = "SPARE_KEY"
models = [{{ id = "shown", upstream = "z-1" }}]
"""
MP3 = b"\xff\xfb\x90\x64" + b"\0" * 60


@pytest.fixture
async def other() -> AsyncIterator[LoopbackVendor]:
    async with LoopbackVendor().open() as running:
        yield running


@pytest.fixture
def file(
    vendor: LoopbackVendor, other: LoopbackVendor, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    """The variables of a good file with two vendors. A key is in the environment, the other in `.env` alone."""
    Path("vendors.toml").write_text(FILE.format(vendor.base_url, other.base_url))
    monkeypatch.setenv("MAIN_KEY", KEY)
    Path(".env").write_text(f"SPARE_KEY={KEY}-spare\n")
    RUN.keep_private(KEY)
    return {"LLM__VENDORS_FILE": "vendors.toml"}


def can_do_everything(call_for: Mapping[str, Behaviour] | None = None) -> Behaviour:
    """Chat, hear and speak, each as told or else well."""
    well: Mapping[str, Behaviour] = {
        "/v1/chat/completions": says("ok"),
        "/v1/audio/transcriptions": sends(b'{"text":""}', content_type="application/json"),
        "/v1/audio/speech": sends(MP3, content_type="audio/mpeg"),
    }

    async def behave(call: Call) -> None:
        await {**well, **(call_for or {})}[call.request.path](call)

    return behave


# --- Several vendors ------------------------------------------------------------------------------------------------


async def test_each_vendor_has_a_line_of_its_own(
    doctor: Doctor, file: Mapping[str, str], vendor: LoopbackVendor, other: LoopbackVendor
) -> None:
    vendor.script, other.script = says("ok"), fails(401, {"error": {"message": f"{KEY}-spare {TELLTALE}"}})
    told = await doctor(file)
    assert told.faults == ["spare"]
    assert told.only("main")[1].startswith("Model loopback-1 answered")
    assert "key was refused" in told.only("spare")[1]
    assert "Look at its `api_key_env` in CHATASSIST_LLM__VENDORS_FILE" in told.only("spare")[1]
    assert "llm" not in told.lines
    assert TELLTALE not in told.output
    assert [request.body["model"] for request in (*vendor.requests, *other.requests)] == ["m-1", "z-1"]
    assert other.requests[0].headers["authorization"] == f"Bearer {KEY}-spare"


@pytest.mark.parametrize(
    ("behaviour", "remedy"),
    [
        (fails(401), "`api_key_env`"),
        (fails(404, {"error": {"code": "model_not_found"}}), "Look at its `models`"),
        (fails(402), "Pay the vendor"),
        (fails(429), "Try again later"),
        (fails(400, {"error": {"code": "invalid_parameter"}}), "CHATASSIST_LLM__TEMPERATURE"),
        (fails(500), "`base_url`"),
        (hangs(), "`base_url`"),
    ],
    ids=["key", "model", "unpaid", "overloaded", "parameter", "fault", "silent"],
)
async def test_each_kind_of_error_has_its_remedy(
    doctor: Doctor, file: Mapping[str, str], vendor: LoopbackVendor, behaviour: Behaviour, remedy: str
) -> None:
    vendor.script = behaviour
    assert remedy in (await doctor(file, patience=HASTY)).only("main")[1]


async def test_a_title_model_of_the_file_is_tried(
    doctor: Doctor, file: Mapping[str, str], other: LoopbackVendor
) -> None:
    told = await doctor({**file, "LLM__TITLE_MODEL": "shown"})
    assert told.only("titles")[0] == "ok"
    assert [request.body["model"] for request in other.requests] == ["z-1", "z-1"]
    told = await doctor({**file, "LLM__TITLE_MODEL": "z-1"})
    assert told.faults == ["titles"]
    assert "CHATASSIST_LLM__TITLE_MODEL has to be the id of a model" in told.only("titles")[1]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "CHATASSIST_LLM__VENDORS_FILE will not do: it cannot be read"),
        ("[[vendor]]\nkind = hidden", "it is no TOML, at line 2"),
        ('[[vendor]]\nkind = "deepseek"\nmodels = [{ id = "m" }]\napi_key = "hidden"', "`api_key` is no key that is"),
        ('[[vendor]]\nkind = "deepseek"\nmodels = [{ id = "m" }]', "`api_key_env` is missing"),
    ],
    ids=["missing", "malformed", "strange", "keyless"],
)
@pytest.mark.parametrize("more", [(), ("--vendor", "main")], ids=["all", "one"])
async def test_a_file_that_will_not_do_is_a_fault(
    doctor: Doctor, written: str | None, said: str, more: tuple[str, ...]
) -> None:
    if written is not None:
        await asyncio.to_thread(Path("vendors.toml").write_text, written)
    told = await doctor({"LLM__VENDORS_FILE": "vendors.toml", "LLM__TITLE_MODEL": "t"}, *more)
    assert told.faults == ["llm"]
    assert said in told.only("llm")[1]
    assert "titles" not in told.lines, "told once"
    assert "hidden" not in told.output


async def test_a_single_vendor_that_cannot_be_tried_is_a_fault(doctor: Doctor) -> None:
    told = await doctor({"LLM__VENDOR": "deepseek", "LLM__MODEL": "m"})
    assert told.faults == ["llm"]
    assert told.only("llm")[1] == "CHATASSIST_LLM__API_KEY is missing: DeepSeek answers nobody without a key."


# --- One vendor -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["main", "openai"], ids=["name", "kind"])
async def test_all_that_a_vendor_can_do_is_tried_once(
    doctor: Doctor, file: Mapping[str, str], vendor: LoopbackVendor, other: LoopbackVendor, name: str
) -> None:
    vendor.script = can_do_everything()
    told = await doctor(file, "--vendor", name)
    assert list(told.lines) == ["chat", "asr", "tts"]
    assert {verdict for lines in told.lines.values() for verdict, _ in lines} == {"ok"}
    assert "silence was transcribed" in told.only("asr")[1]
    assert "were spoken" in told.only("tts")[1]
    assert sorted(request.path for request in vendor.requests) == [
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/chat/completions",
    ]
    assert {request.headers["authorization"] for request in vendor.requests} == {f"Bearer {KEY}"}
    assert other.requests == []


async def test_what_is_wrong_is_told_for_each(doctor: Doctor, file: Mapping[str, str], vendor: LoopbackVendor) -> None:
    refused = fails(401, {"error": {"message": f"{KEY} {TELLTALE}"}})
    vendor.script = can_do_everything(
        {"/v1/chat/completions": refused, "/v1/audio/transcriptions": refused, "/v1/audio/speech": fails(404)}
    )
    told = await doctor(file, "--vendor", "main")
    assert told.faults == ["chat", "asr", "tts"]
    assert "the key was refused. Look at its `api_key_env`" in told.only("chat")[1]
    assert "the key was refused. Look at its `api_key_env`" in told.only("asr")[1]
    assert "no such model or address" in told.only("tts")[1]
    assert TELLTALE not in told.output


async def test_a_vendor_that_only_chats(doctor: Doctor, vendor: LoopbackVendor) -> None:
    one = {"LLM__VENDOR": "deepseek", "LLM__BASE_URL": vendor.base_url, "LLM__API_KEY": KEY, "LLM__MODEL": "m"}
    told = await doctor(one, "--vendor", "deepseek")
    assert told.faults == []
    assert told.only("chat")[0] == "ok"
    assert told.only("asr")[1] == "No speech to text of DeepSeek is known: there is nothing to try."
    assert told.only("tts")[1] == "No text to speech of DeepSeek is known: there is nothing to try."
    assert len(vendor.requests) == 1


async def test_a_gateway_whose_engine_for_recordings_is_set(doctor: Doctor, vendor: LoopbackVendor) -> None:
    """What the settings say of speech to text counts, where it is this vendor's."""
    vendor.script = can_do_everything()
    chat = {"LLM__BASE_URL": vendor.base_url, "LLM__API_KEY": KEY, "LLM__MODEL": "m"}
    told = await doctor({**chat, **on_whisper(vendor)}, "--vendor", "openai_compatible")
    assert told.faults == []
    assert told.only("asr")[0] == "ok"
    assert b"whisper-1" in next(each.body for each in vendor.requests if each.path == "/v1/audio/transcriptions")
    assert told.only("tts")[0] == "warn", "which model, nobody said"


async def test_a_gateway_whose_models_for_speech_are_not_known(doctor: Doctor, vendor: LoopbackVendor) -> None:
    chat = {"LLM__BASE_URL": vendor.base_url, "LLM__API_KEY": KEY, "LLM__MODEL": "m"}
    told = await doctor(chat, "--vendor", "openai_compatible")
    assert [told.only(name)[0] for name in ("chat", "asr", "tts")] == ["ok", "warn", "warn"]
    vendor.script = can_do_everything()
    said = {"transcription": {"model": "hears"}, "speech": {"model": "speaks", "voice": "low"}}
    told = await doctor({**chat, "LLM__OVERRIDES": json.dumps(said)}, "--vendor", "openai_compatible")
    assert [told.only(name)[0] for name in ("chat", "asr", "tts")] == ["ok", "ok", "ok"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hidden-name", "No vendor of this name is configured (those that are: main, spare)"),
        ("deepseek", "DeepSeek is not configured (those that are: main, spare): set CHATASSIST_LLM__VENDOR=deepseek"),
    ],
)
def test_a_vendor_that_is_not_configured(
    file: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("CHATASSIST_LLM__VENDORS_FILE", file["LLM__VENDORS_FILE"])
    result = CliRunner().invoke(app, ["doctor", "--vendor", name])
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_vendor_at_all(doctor: Doctor) -> None:
    result = CliRunner().invoke(app, ["doctor", "--vendor", "openai"])
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "OpenAI is not configured (those that are: none): set CHATASSIST_LLM__VENDOR=openai"
    )
