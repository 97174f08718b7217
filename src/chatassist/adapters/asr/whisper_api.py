"""Whisper behind any OpenAI-compatible `POST …/audio/transcriptions`.

The openai client makes the request; the answer is read here, under a cap, because vendors answer in many shapes.
"""

import io
import json
import re
from collections.abc import Mapping
from contextlib import aclosing

import openai

from chatassist.adapters.asr.asking import MAX_BODY, asked, heard
from chatassist.adapters.http import open_vendor_client
from chatassist.adapters.openai_client import open_vendor, read_at_most
from chatassist.adapters.vendor import Access, TranscriptionRoute
from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.errors import AsrUnavailable
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber

_HTML = re.compile(r"\s*<(?!\|)")  # a tag of SenseVoice begins like one of HTML


class WhisperApiTranscriber(Transcriber):
    """One vendor, one key, one model. `silence`: seconds without any byte from the vendor while it works."""

    def __init__(self, access: Access, route: TranscriptionRoute, *, silence: float) -> None:
        self._vendor = open_vendor(access, open_vendor_client(read_timeout=silence))
        self._refusals = access.vendor.refusals
        self._route = route

    async def aclose(self) -> None:
        """Close all connections; calls in progress fail."""
        await self._vendor.close()

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Ask the vendor; see Transcriber."""
        return await asked(self._ask, sound, hints, route=self._route)

    async def _ask(self, sound: Sound, hints: Hints) -> Transcript:
        call = self._vendor.audio.transcriptions.with_streaming_response.create(
            model=self._route.model,
            file=(
                "audio.wav",
                io.BytesIO(sound.wav()),
                "audio/wav",
            ),  # a file is sent in pieces, bytes in one long write
            language=hints.language or openai.omit,
            prompt=hints.prompt or openai.omit,
        )
        async with call as response, aclosing(response.http_response.aiter_raw()) as parts:
            body = await read_at_most(parts, MAX_BODY)
        if body is None:
            raise AsrUnavailable("the vendor's answer is too large")
        return self._read(body, response.headers.get("content-type", ""), hints.language)

    def _read(self, body: bytes, content_type: str, language: str | None) -> Transcript:
        """Take JSON, verbose JSON or plain text, whatever was asked for: proxies do as they like."""
        try:
            text = body.decode("utf-8-sig", "surrogatepass")
            document: object = json.loads(text) if "json" in content_type or text.lstrip().startswith("{") else text
        except (ValueError, RecursionError) as exc:
            raise AsrUnavailable("the vendor's answer is neither JSON nor text") from exc
        if isinstance(document, dict):
            return self._transcript(document, language)
        if not isinstance(document, str) or "html" in content_type or _HTML.match(document):
            raise AsrUnavailable("the vendor's answer holds no text")
        return heard(document, model=self._route.model, hint=language)

    def _transcript(self, document: Mapping[str, object], language: str | None) -> Transcript:
        text = document.get("text")
        if not isinstance(text, str):
            raise self._refusals.within(document) or AsrUnavailable("the vendor's answer holds no text")
        return heard(text, model=self._route.model, hint=language, language=document.get("language"))
