"""Which engine hears recordings: what the settings say of it, and the catalogue where they say nothing.

What will not do is a ValueError with one sentence, which names the setting and no value.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never
from urllib.parse import urlsplit

from chatassist.adapters.asr.chat_transcriber import ChatTranscriber
from chatassist.adapters.asr.listening import PyAvListener
from chatassist.adapters.asr.none import NoListener, NoTranscriber
from chatassist.adapters.asr.remembering import RememberingTranscriber
from chatassist.adapters.asr.splitting import SplittingTranscriber
from chatassist.adapters.asr.whisper_api import WhisperApiTranscriber
from chatassist.adapters.asr.whisper_local import LocalWhisperTranscriber
from chatassist.adapters.catalogue import CATALOGUE, kind_of
from chatassist.adapters.vendor import Access, TranscriptionRoute, TranscriptionStyle, Vendor
from chatassist.adapters.vendor_address import belongs, repaired
from chatassist.container.secrets import secret_of
from chatassist.domain.ports.asr import Listener, Transcriber
from chatassist.settings import AsrEngine, AsrSettings, Settings


def transcriber_of(settings: Settings) -> Transcriber:
    """Return the engine that is set. Raises ValueError for one that could never work."""
    asr = settings.asr
    match asr.engine:
        case AsrEngine.NONE:
            return NoTranscriber()
        case AsrEngine.WHISPER_API:
            access, route = vendor_that_hears(asr)
            return transcriber_at(access, route, silence=asr.deadline)
        case AsrEngine.WHISPER_LOCAL:
            try:
                return LocalWhisperTranscriber(model=asr.model or "")
            except ValueError as exc:
                raise ValueError(f"CHATASSIST_ASR__ENGINE=whisper_local will not do: {exc}.") from exc
        case unknown:
            assert_never(unknown)


def listener_of(settings: Settings) -> Listener:
    """Return what stands in front of the engine; without one, nothing is listened to. Raises ValueError."""
    if settings.asr.engine is AsrEngine.NONE:
        return NoListener()
    try:
        return PyAvListener(most=settings.limits.audio_seconds)
    except ValueError as exc:
        raise ValueError(f"CHATASSIST_ASR__ENGINE will not do: {exc}.") from exc


def transcriber_around(engine: Transcriber, settings: Settings) -> Transcriber:
    """Return the engine as the service is given it: asked in parts where it takes no more, and once about the same."""
    asr = settings.asr
    most = vendor_that_hears(asr)[1].max_seconds if asr.engine is AsrEngine.WHISPER_API else None
    return RememberingTranscriber(engine if most is None else SplittingTranscriber(engine, most=most))


def warm(engine: Transcriber) -> None:
    """Have a model on this machine loaded while nobody waits for it; returns at once."""
    if isinstance(engine, LocalWhisperTranscriber):
        engine.warm()


def transcriber_at(access: Access, route: TranscriptionRoute, *, silence: float) -> Transcriber:
    """Return what speaks to a vendor in the way of its route. `silence`: seconds it may say nothing."""
    match route.style:
        case TranscriptionStyle.OPENAI:
            return WhisperApiTranscriber(access, route, silence=silence)
        case TranscriptionStyle.CHAT:
            return ChatTranscriber(access, route, silence=silence)
        case unknown:
            assert_never(unknown)


def vendor_that_hears(asr: AsrSettings) -> tuple[Access, TranscriptionRoute]:
    """Return how the engine `whisper_api` is reached, and what it is asked for. Raises ValueError."""
    kind = _kind(asr)
    if kind.transcription is None:
        setting = "CHATASSIST_ASR__BASE_URL" if asr.vendor is None else "CHATASSIST_ASR__VENDOR"
        raise ValueError(
            f"{setting} will not do: no speech to text of {kind.title} is known, only of {_listed(_hearing())}."
        )
    route = replace(kind.transcription, model=asr.model or kind.transcription.model)
    if not route.model:
        raise ValueError(f"CHATASSIST_ASR__MODEL is missing: with {kind.title}, only you know what it is called.")
    address = asr.base_url or kind.base_url
    if address is None:
        raise ValueError(
            f"CHATASSIST_ASR__BASE_URL is missing: {kind.title} has no address that is the same for everybody."
        )
    try:
        access = Access(vendor=kind, base_url=repaired(kind, address), api_key=secret_of(asr.api_key))
    except ValueError as exc:
        raise ValueError(f"CHATASSIST_ASR__BASE_URL will not do: {exc}.") from exc
    if not access.api_key and belongs(kind, urlsplit(access.base_url).hostname or ""):
        raise ValueError(
            f"CHATASSIST_ASR__API_KEY is missing: {kind.title} answers nobody without one, and no other is used for it."
        )
    return access, route


def _kind(asr: AsrSettings) -> Vendor:
    if asr.vendor is None:
        return kind_of(asr.base_url or "")
    if asr.vendor not in CATALOGUE:
        raise ValueError(f"CHATASSIST_ASR__VENDOR will not do: it has to be {_listed(_hearing())}.")
    return CATALOGUE[asr.vendor]


def _hearing() -> Sequence[str]:
    return [kind.name for kind in CATALOGUE.values() if kind.transcription is not None]


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"
