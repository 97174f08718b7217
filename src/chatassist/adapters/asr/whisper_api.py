"""Whisper behind any OpenAI-compatible `POST …/audio/transcriptions`.

The openai client makes the request; the answer is read here, under a cap, because vendors answer in many shapes.
"""

import io
import json
import math
import re
from collections.abc import Mapping
from contextlib import aclosing

import openai

from chatassist.adapters.asr.sniff import FILES
from chatassist.adapters.catalogue import OPENAI_COMPATIBLE
from chatassist.adapters.clean_text import cleaned
from chatassist.adapters.http import open_vendor_client
from chatassist.adapters.openai_client import FOREIGN, Unsendable, VendorSilent, open_vendor, read_at_most, sorted_out
from chatassist.adapters.vendor import Access
from chatassist.adapters.vendor_errors import Kind, Refusals, Refused
from chatassist.domain.audio import Audio, Transcript
from chatassist.domain.errors import (
    AsrTimeout,
    AsrUnavailable,
    AudioTooLarge,
    AudioUnsupported,
    ChatAssistError,
)
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber

_PATH = "/audio/transcriptions"
_MAX_BODY = 1024 * 1024  # bytes; an hour of speech is some 50 KB of text
_MAX_SECONDS = 86_400.0  # beyond it a duration is nonsense
_HOPELESS = (Kind.AUTH, Kind.BILLING, Kind.CONFIGURATION, Kind.UNSAFE_INPUT, Kind.UNSAFE_OUTPUT)
_LANGUAGE = re.compile(r"[a-z]{2,3}")


class WhisperApiTranscriber(Transcriber):
    """One vendor, one key, one model. `silence`: seconds without any byte from the vendor while it works."""

    def __init__(self, *, base_url: str, api_key: str, model: str, silence: float) -> None:
        access = Access(
            vendor=OPENAI_COMPATIBLE, base_url=base_url.strip().rstrip("/").removesuffix(_PATH), api_key=api_key
        )
        self._refusals = access.vendor.refusals
        self._vendor = open_vendor(access, open_vendor_client(read_timeout=silence))
        self._model = model

    async def aclose(self) -> None:
        """Close all connections; calls in progress fail."""
        await self._vendor.close()

    async def transcribe(self, audio: Audio, hints: Hints = NO_HINTS) -> Transcript:
        """Ask the vendor; see Transcriber. Without the hints once more if it refuses a parameter."""
        try:
            try:
                return await self._ask(audio, hints)
            except Refused as refused:
                if refused.kind is not Kind.PARAMETER or refused.status == 415 or hints == NO_HINTS:
                    raise
            return await self._ask(audio, NO_HINTS)
        except Refused as refused:
            raise _refused(refused) from refused
        except FOREIGN as exc:
            raise _translated(exc) from exc

    async def _ask(self, audio: Audio, hints: Hints) -> Transcript:
        name, media_type = FILES[audio.kind]
        call = self._vendor.audio.transcriptions.with_streaming_response.create(
            model=self._model,
            file=(name, io.BytesIO(audio.data), media_type),  # a file is sent in pieces, bytes in one long write
            language=hints.language or openai.omit,
            prompt=hints.prompt or openai.omit,
        )
        async with call as response, aclosing(response.http_response.aiter_raw()) as parts:
            body = await read_at_most(parts, _MAX_BODY)
        if body is None:
            raise AsrUnavailable("the vendor's answer is too large")
        return _read(body, response.headers.get("content-type", ""), hints.language, self._refusals)


def _read(body: bytes, content_type: str, language: str | None, refusals: Refusals) -> Transcript:
    """Take JSON, verbose JSON or plain text, whatever was asked for: proxies do as they like."""
    try:
        text = body.decode("utf-8-sig", "surrogatepass")
        document: object = json.loads(text) if "json" in content_type or text.lstrip().startswith("{") else text
    except (ValueError, RecursionError) as exc:
        raise AsrUnavailable("the vendor's answer is neither JSON nor text") from exc
    if isinstance(document, dict):
        return _transcript(document, language, refusals)
    if not isinstance(document, str) or "html" in content_type or document.lstrip().startswith("<"):
        raise AsrUnavailable("the vendor's answer holds no text")
    return Transcript(text=cleaned(document).strip(), language=language)


def _transcript(document: Mapping[str, object], language: str | None, refusals: Refusals) -> Transcript:
    text = document.get("text")
    if not isinstance(text, str):
        raise refusals.within(document) or AsrUnavailable("the vendor's answer holds no text")
    heard = document.get("language")
    usage = document.get("usage")
    seconds = document.get("duration", usage.get("seconds") if isinstance(usage, dict) else None)
    return Transcript(
        text=cleaned(text).strip(),
        language=heard if isinstance(heard, str) and _LANGUAGE.fullmatch(heard) else language,
        duration=_duration(seconds),
    )


def _duration(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)  # some send it as text
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _MAX_SECONDS else None


def _refused(refused: Refused) -> ChatAssistError:
    """Only the recording differs from call to call: what is wrong with a request is wrong with the recording."""
    if refused.kind is Kind.TOO_LONG:
        return AudioTooLarge(str(refused))
    if refused.kind is Kind.PARAMETER or refused.status == 415:
        return AudioUnsupported(str(refused))
    error = AsrUnavailable(str(refused), retry_after=refused.retry_after)
    if refused.kind in _HOPELESS:
        error.retry_after = None  # the same would happen again until somebody acts
    return error


def _translated(exc: Exception) -> AsrTimeout | AsrUnavailable:
    meaning = sorted_out(exc)
    if isinstance(meaning, VendorSilent):
        return AsrTimeout(str(meaning))
    error = AsrUnavailable(str(meaning))
    if isinstance(meaning, Unsendable):
        error.retry_after = None
    return error
