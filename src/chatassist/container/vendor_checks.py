"""What `chatassist doctor` looks at of AI vendors: one tiny call each, as the service would make it, with remedies."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import urlsplit

from chatassist.adapters.catalogue import CATALOGUE, OPENAI_COMPATIBLE
from chatassist.adapters.closing import close
from chatassist.adapters.tts.speech_api import SpeechApiSynthesiser
from chatassist.container.models import bare_model
from chatassist.container.speech import transcriber_at, vendor_that_hears
from chatassist.container.vendors import ConfiguredVendor, vendors_of
from chatassist.domain.diagnosis import Check, Verdict, look_at_model, look_at_synthesiser, look_at_transcriber
from chatassist.domain.errors import (
    LlmKeyRefused,
    LlmMisconfigured,
    LlmOverloaded,
    LlmParameterRefused,
    LlmTimeout,
    LlmUnpaid,
)
from chatassist.settings import AsrEngine, Settings

Looks = AsyncIterator[tuple[Verdict, str]]

_SCRIPTED = "Every reply is the same scripted text, as CHATASSIST_LLM__VENDOR says."
_NO_VENDOR = (
    "No AI vendor is set: every reply is the same scripted text. Set CHATASSIST_LLM__VENDOR, __API_KEY and __MODEL."
)
_SILENCE = 30.0  # seconds that an engine for speech may say nothing


def vendor_checks(settings: Settings) -> Sequence[Check]:
    """Return a check for each vendor that is configured, or the one that tells why there is none."""
    try:
        vendors = vendors_of(settings)
    except ValueError as error:
        return (Check(name="llm", look=partial(_raise, error)),)
    if not vendors:
        return (Check(name="llm", look=partial(_look_at_nothing, settings)),)
    if settings.llm.vendors_file is None:
        return (_chat_check(settings, vendors[0], name="llm"),)
    return [_chat_check(settings, vendor, name=vendor.name) for vendor in vendors]


def checks_of_vendor(settings: Settings, name: str, transcribe: Callable[[], Looks]) -> Sequence[Check]:
    """Return all that can be tried of the vendors of this name or kind: chat, speech to text, text to speech.

    `transcribe` looks at the engine that the settings name. Raises ValueError where nobody is called so.
    """
    try:
        vendors = vendors_of(settings)
    except ValueError as error:
        return (Check(name="llm", look=partial(_raise, error)),)
    meant = [vendor for vendor in vendors if vendor.name == name] or [
        vendor for vendor in vendors if vendor.kind.name == name
    ]
    if not meant:
        raise ValueError(_unknown(name, vendors))
    return [check for vendor in meant for check in _checks(settings, vendor, transcribe, alone=len(meant) == 1)]


def _unknown(name: str, vendors: Sequence[ConfiguredVendor]) -> str:
    configured = ", ".join(vendor.name for vendor in vendors) or "none"
    if name in CATALOGUE:
        kind = CATALOGUE[name]
        return (
            f"{kind.title} is not configured (those that are: {configured}): set CHATASSIST_LLM__VENDOR={name},"
            " CHATASSIST_LLM__API_KEY and CHATASSIST_LLM__MODEL, or give it a row in CHATASSIST_LLM__VENDORS_FILE."
        )
    return f"No vendor of this name is configured (those that are: {configured}), nor is there such a kind."


def _checks(
    settings: Settings, vendor: ConfiguredVendor, transcribe: Callable[[], Looks], *, alone: bool
) -> Sequence[Check]:
    speech = _speech_remedies(settings)
    hearing = transcribe if _is_of(settings, vendor) else partial(_look_at_hearing, vendor)
    named = "" if alone else f"{vendor.name}:"
    return (
        _chat_check(settings, vendor, name=f"{named}chat"),
        Check(name=f"{named}asr", look=hearing, remedies=speech),
        Check(name=f"{named}tts", look=partial(_look_at_speaking, vendor), remedies=speech),
    )


def _chat_check(settings: Settings, vendor: ConfiguredVendor, *, name: str) -> Check:
    return Check(name=name, look=partial(_look_at_chat, settings, vendor), remedies=_remedies(settings))


async def _raise(error: Exception) -> Looks:
    raise error
    yield  # an iterator, as all looks are


async def _look_at_nothing(settings: Settings) -> Looks:
    yield (Verdict.OK, _SCRIPTED) if settings.llm.vendor else (Verdict.WARN, _NO_VENDOR)


async def _look_at_chat(settings: Settings, vendor: ConfiguredVendor) -> Looks:
    llm = settings.llm
    async with AsyncExitStack() as stack:
        model = bare_model(llm, vendor, vendor.default.upstream, at_once=1, temperature=llm.temperature)
        stack.push_async_callback(close, model)
        async for found in look_at_model(model):
            yield found


async def _look_at_hearing(vendor: ConfiguredVendor) -> Looks:
    route = vendor.kind.transcription
    if route is None:
        yield Verdict.OK, f"No speech to text of {vendor.kind.title} is known: there is nothing to try."
    elif not route.model:
        yield Verdict.WARN, f"The speech to text of {vendor.kind.title} is not tried: which model, only you know."
    else:
        async with AsyncExitStack() as stack:
            transcriber = transcriber_at(vendor.access, route, silence=_SILENCE)
            stack.push_async_callback(close, transcriber)
            async for found in look_at_transcriber(transcriber):
                yield found


async def _look_at_speaking(vendor: ConfiguredVendor) -> Looks:
    route = vendor.kind.speech
    if route is None:
        yield Verdict.OK, f"No text to speech of {vendor.kind.title} is known: there is nothing to try."
    elif not (route.model and route.voice):
        yield Verdict.WARN, f"The text to speech of {vendor.kind.title} is not tried: which model, only you know."
    else:
        async with AsyncExitStack() as stack:
            synthesiser = SpeechApiSynthesiser(vendor.access, route, silence=_SILENCE)
            stack.push_async_callback(close, synthesiser)
            async for found in look_at_synthesiser(synthesiser):
                yield found


def _is_of(settings: Settings, vendor: ConfiguredVendor) -> bool:
    """Whether the engine for recordings is this vendor's: of its kind, or at its address."""
    if settings.asr.engine is not AsrEngine.WHISPER_API:
        return False
    try:
        access, _ = vendor_that_hears(settings.asr)
    except ValueError:
        return False  # told by a check of its own
    same_kind = vendor.kind.name == access.vendor.name != OPENAI_COMPATIBLE.name
    return same_kind or urlsplit(access.base_url).netloc == urlsplit(vendor.access.base_url).netloc


def _remedies(settings: Settings) -> Mapping[type[Exception], str]:
    key, model, address, others = _called(settings, "api_key", "model", "base_url", "overrides")
    return {
        LlmKeyRefused: f"Look at {key}: is it whole, this vendor's, and of the region that the address is in?",
        LlmParameterRefused: f"Look at CHATASSIST_LLM__TEMPERATURE, CHATASSIST_LLM__MAX_OUTPUT_TOKENS and {others}.",
        LlmMisconfigured: f"Look at {model} and {address}, and whether the account may use that model.",
        LlmUnpaid: "Pay the vendor, or raise what its console lets this key spend.",
        LlmOverloaded: "Try again later, or raise the account's limits.",
        LlmTimeout: "See whether the vendor works for others; a model that is silent for long needs a longer"
        " CHATASSIST_LLM__IDLE_TIMEOUT.",
        Exception: f"Let this machine reach the vendor's address ({address} where it is given; it often ends in /v1),"
        " and see whether the vendor works for others.",
    }


def _speech_remedies(settings: Settings) -> Mapping[type[Exception], str]:
    key, others = _called(settings, "api_key", "overrides")
    return {
        Exception: f"Look at {key}, at whether the account may use speech, and at `transcription` and `speech` in"
        f" {others}, where the model can be said otherwise."
    }


def _called(settings: Settings, *names: str) -> Sequence[str]:
    """Return what the operator calls these settings of a vendor."""
    if settings.llm.vendors_file is None:
        return [f"CHATASSIST_LLM__{name.upper()}" for name in names]
    keys = {"api_key": "its `api_key_env`", "model": "its `models`", "base_url": "its `base_url`"}
    return [f"{keys.get(name, 'its row')} in CHATASSIST_LLM__VENDORS_FILE" for name in names]
