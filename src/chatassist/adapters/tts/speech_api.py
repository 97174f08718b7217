"""Voices behind any OpenAI-compatible `POST …/audio/speech`.

The openai client makes the request; the answer is read here, under a cap. It is a recording only if its bytes say so:
vendors and what stands before them send errors as JSON or HTML with HTTP 200, and under any name.
"""

import json
from collections.abc import Mapping
from contextlib import aclosing, suppress

from chatassist.adapters.clean_text import cleaned
from chatassist.adapters.http import open_vendor_client
from chatassist.adapters.openai_client import FOREIGN, Unsendable, VendorSilent, open_vendor, read_at_most, sorted_out
from chatassist.adapters.sniff import recognise
from chatassist.adapters.vendor import Access, SpeechRoute
from chatassist.adapters.vendor_errors import Kind, Refused
from chatassist.domain.audio import Audio
from chatassist.domain.errors import AudioUnsupported, TtsTimeout, TtsUnavailable
from chatassist.domain.ports.tts import Script, Synthesiser

_MAX_BODY = 16 * 1024 * 1024  # bytes; 1,024 characters are some four minutes, 11 MB of wav at 24 kHz
_TEXTS = ("text/", "json", "html", "xml")  # in a content type that is no recording's
_PASSING = (Kind.RATE, Kind.OVERLOAD, Kind.FAULT)


class SpeechApiSynthesiser(Synthesiser):
    """One vendor, one key, one model. `silence`: seconds without any byte from the vendor while it works."""

    def __init__(self, access: Access, route: SpeechRoute, *, silence: float) -> None:
        self._vendor = open_vendor(access, open_vendor_client(read_timeout=silence))
        self._refusals = access.vendor.refusals
        self._route = route

    @property
    def max_chars(self) -> int:
        """The vendor's."""
        return self._route.max_chars

    async def aclose(self) -> None:
        """Close all connections; calls in progress fail."""
        await self._vendor.close()

    async def synthesise(self, script: Script) -> Audio:
        """Ask the vendor; see Synthesiser. Without format and speed once more if it refuses a parameter."""
        script.check(self._route.max_chars)
        optional: dict[str, object] = {"response_format": self._route.format}
        if script.speed != 1:
            optional["speed"] = script.speed
        try:
            try:
                return await self._ask(script, optional)
            except Refused as refused:
                if refused.kind is not Kind.PARAMETER:
                    raise
            return await self._ask(script, {})
        except Refused as refused:
            raise _refused(refused) from refused
        except FOREIGN as exc:
            raise _translated(exc) from exc

    async def _ask(self, script: Script, optional: Mapping[str, object]) -> Audio:
        call = self._vendor.audio.speech.with_streaming_response.create(
            model=self._route.model,
            voice=script.voice or self._route.voice,
            input=cleaned(script.text),  # half a character cannot be sent
            extra_body=optional,
        )
        async with call as response, aclosing(response.http_response.aiter_raw()) as parts:
            body = await read_at_most(parts, _MAX_BODY)
        if body is None:
            raise TtsUnavailable("the vendor's recording is too large")
        return self._recording(body, response.headers.get("content-type", ""))

    def _recording(self, body: bytes, content_type: str) -> Audio:
        is_text = any(word in content_type.lower() for word in _TEXTS)
        with suppress(AudioUnsupported):
            if not is_text:
                return recognise(body)
        raise self._hidden(body) or TtsUnavailable("the vendor's answer is no recording")

    def _hidden(self, body: bytes) -> Refused | None:
        """Return the refusal that came in place of a recording, if it is one."""
        try:
            document: object = json.loads(body)
        except (ValueError, RecursionError):
            return None
        return self._refusals.within(document) if isinstance(document, dict) else None


def _refused(refused: Refused) -> TtsUnavailable:
    error = TtsUnavailable(str(refused), retry_after=refused.retry_after)
    if refused.kind not in _PASSING:
        error.retry_after = None  # the same would happen again until somebody acts
    return error


def _translated(exc: Exception) -> TtsTimeout | TtsUnavailable:
    meaning = sorted_out(exc)
    if isinstance(meaning, VendorSilent):
        return TtsTimeout(str(meaning))
    error = TtsUnavailable(str(meaning))
    if isinstance(meaning, Unsendable):
        error.retry_after = None
    return error
