"""Who hears recordings, by what is set: a vendor's name and a key are enough; what will not do stops the start."""

from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.adapters.asr.chat_transcriber import ChatTranscriber
from chatassist.adapters.asr.whisper_api import WhisperApiTranscriber
from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.closing import close
from chatassist.adapters.vendor import TranscriptionRoute
from chatassist.container import open_services
from chatassist.container.speech import transcriber_of, vendor_that_hears
from chatassist.domain.audio import AudioKind
from chatassist.settings import AsrEngine, AsrSettings, Settings
from tests.fixtures.logs import RUN
from tests.fixtures.service import Serve, data_of, settings_for
from tests.fixtures.speech import recording
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails

KEY = "sk-hidden-key-1234"


def engine(**given: Any) -> AsrSettings:
    return AsrSettings(engine=AsrEngine.WHISPER_API, **given)


@pytest.mark.parametrize("name", [row.name for row in CATALOGUE.values() if row.transcription])
def test_a_name_and_a_key_are_enough_where_the_row_knows_the_rest(name: str) -> None:
    row = CATALOGUE[name]
    assert row.transcription is not None
    if row.base_url is None or not row.transcription.model:
        with pytest.raises(ValueError, match=r"^CHATASSIST_ASR__(MODEL|BASE_URL) is missing: "):
            vendor_that_hears(engine(vendor=name, api_key=KEY))
        return
    access, route = vendor_that_hears(engine(vendor=name, api_key=KEY))
    assert (access.vendor, access.base_url, access.api_key) == (row, row.base_url, KEY)
    assert route == row.transcription


def test_the_address_and_the_model_can_be_others() -> None:
    asr = engine(
        vendor="zhipu", base_url="https://api.z.ai/api/paas/v4/audio/transcriptions", model="glm-asr-9", api_key=KEY
    )
    access, route = vendor_that_hears(asr)
    assert access.base_url == "https://api.z.ai/api/paas/v4"
    assert route == TranscriptionRoute(model="glm-asr-9", hints=False, max_seconds=30)


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        ("https://api.siliconflow.cn/v1", "siliconflow"),
        ("https://api.openai.com/v1/audio/transcriptions/", "openai"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen"),
        ("https://ears.openai.azure.com/openai/v1", "azure"),
        ("http://127.0.0.1:8000/v1", "openai_compatible"),
        ("https://asr.example.com/v1", "openai_compatible"),
    ],
)
def test_without_a_name_the_address_tells_who_it_is(base_url: str, kind: str) -> None:
    access, route = vendor_that_hears(engine(base_url=base_url, model="m", api_key=KEY))
    assert access.vendor.name == kind
    assert access.base_url == base_url.rstrip("/").removesuffix("/audio/transcriptions")
    assert route.model == "m"


@pytest.mark.parametrize("given", [{"vendor": "localai"}, {"vendor": "openai", "base_url": "http://proxy:8080/v1"}])
def test_servers_of_ones_own_need_no_key(given: dict[str, Any]) -> None:
    assert vendor_that_hears(engine(**given))[0].api_key == ""


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"vendor": "hidden"}, r"CHATASSIST_ASR__VENDOR will not do: it has to be openai, .*siliconflow.* or "),
        (
            {"vendor": "deepseek", "api_key": KEY},
            r"CHATASSIST_ASR__VENDOR will not do: .*DeepSeek .*only of openai, .*qwen",
        ),
        (
            {"base_url": "https://api.deepseek.com", "model": "hidden", "api_key": KEY},
            r"CHATASSIST_ASR__BASE_URL will not do: .*DeepSeek .*only of openai, ",
        ),
        ({"vendor": "vllm"}, r"CHATASSIST_ASR__MODEL is missing: .*vLLM"),
        ({"vendor": "azure", "model": "hidden", "api_key": KEY}, r"CHATASSIST_ASR__BASE_URL is missing: Azure OpenAI "),
        ({"vendor": "openai_compatible", "model": "hidden"}, r"CHATASSIST_ASR__BASE_URL is missing: "),
        ({"vendor": "siliconflow"}, r"CHATASSIST_ASR__API_KEY is missing: SiliconFlow .*no other is used for it"),
        (
            {"base_url": "https://api.openai.com/v1", "model": "whisper-1"},
            r"CHATASSIST_ASR__API_KEY is missing: OpenAI ",
        ),
        (
            {"vendor": "azure", "base_url": "https://hidden.openai.azure.com", "model": "m", "api_key": KEY},
            r"CHATASSIST_ASR__BASE_URL will not do: an address of Azure OpenAI needs its path",
        ),
        (
            {"base_url": "http://hidden:pass@127.0.0.1/v1", "model": "m"},
            r"CHATASSIST_ASR__BASE_URL will not do: the address has an account in it",
        ),
    ],
)
async def test_what_will_not_do_stops_the_start_in_one_sentence_without_a_value(
    sqlite_url: URL, given: dict[str, Any], sentence: str
) -> None:
    settings = settings_for(sqlite_url, asr={"engine": "whisper_api", **given})
    with pytest.raises(ValueError, match=f"^{sentence}") as caught:
        async with open_services(settings):
            pass
    assert "hidden" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(("name", "made"), [("qwen", ChatTranscriber), ("siliconflow", WhisperApiTranscriber)])
async def test_each_route_has_its_own_way(sqlite_url: URL, name: str, made: type[object]) -> None:
    settings = settings_for(sqlite_url, asr={"engine": "whisper_api", "vendor": name, "api_key": KEY})
    transcriber = transcriber_of(settings)
    assert isinstance(transcriber, made)
    await close(transcriber)


async def test_the_key_of_the_ai_vendor_is_never_used_for_speech(sqlite_url: URL) -> None:
    llm = {"base_url": "https://api.siliconflow.cn/v1", "api_key": "sk-for-chat-alone", "model": "m"}
    settings: Settings = settings_for(sqlite_url, llm=llm, asr={"engine": "whisper_api", "vendor": "siliconflow"})
    with pytest.raises(ValueError, match="CHATASSIST_ASR__API_KEY is missing"):
        transcriber_of(settings)


async def test_a_recording_goes_all_the_way_to_a_vendor_by_chat(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    said = "请帮我把明天的会议改到下午三点"
    RUN.keep_private(said, KEY)
    message = {"content": said, "annotations": [{"type": "audio_info", "language": "zh"}]}
    vendor.script = fails(200, {"choices": [{"message": message}], "usage": {"seconds": 3}})
    asr = {"engine": "whisper_api", "vendor": "qwen", "base_url": vendor.base_url, "api_key": KEY}
    person = await (await serve(settings_for(sqlite_url, asr=asr))).login()
    heard = data_of(await person.speaks(recording(AudioKind.M4A), "录音.wav"))
    assert heard == {"text": said, "language": "zh", "duration": pytest.approx(4.0, abs=0.1)}
    part = vendor.requests[0].body["messages"][0]["content"][0]
    assert part["input_audio"]["data"].startswith("data:audio/wav;base64,")
