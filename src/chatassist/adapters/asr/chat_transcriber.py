"""Recordings as parts of a chat, `POST …/chat/completions` with `input_audio`: DashScope's qwen3-asr-flash.

Not streamed: nobody sees a transcript before it is whole. See help.aliyun.com/en/model-studio/qwen-asr-api-reference.
"""

import base64
import json
from collections.abc import Mapping
from contextlib import aclosing

from chatassist.adapters.asr.asking import MAX_BODY, asked, heard
from chatassist.adapters.http import open_vendor_client
from chatassist.adapters.httptools_transport import HttptoolsTransport
from chatassist.adapters.openai_client import Posts, read_at_most
from chatassist.adapters.vendor import Access, TranscriptionRoute
from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.errors import AsrUnavailable
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber

_PATH = "/chat/completions"
_CONNECTIONS = 256
_SOUND = "sound"


class ChatTranscriber(Transcriber):
    """One vendor, one key, one model. `silence`: seconds without any byte from the vendor while it works."""

    def __init__(self, access: Access, route: TranscriptionRoute, *, silence: float) -> None:
        transport = HttptoolsTransport(max_connections=_CONNECTIONS)
        http = open_vendor_client(read_timeout=silence, transport=transport)
        self._posts = Posts(access, http, transport, _PATH)
        self._refusals = access.vendor.refusals
        self._route = route

    async def aclose(self) -> None:
        """Close all connections; calls in progress fail."""
        await self._posts.vendor.close()

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Ask the vendor; see Transcriber."""
        return await asked(self._ask, sound, hints, route=self._route)

    async def _ask(self, sound: Sound, hints: Hints) -> Transcript:
        content = self._request(sound, hints)
        async with aclosing(await self._posts.send(content)) as response, aclosing(response.aiter_raw()) as parts:
            body = await read_at_most(parts, MAX_BODY)
        if body is None:
            raise AsrUnavailable("the vendor's answer is too large")
        return self._read(body, hints.language)

    def _request(self, sound: Sound, hints: Hints) -> bytes:
        """Return the body. Sound is put into finished JSON: to look for what to escape in megabytes takes too long."""
        context = [{"role": "system", "content": [{"type": "text", "text": hints.prompt}]}] if hints.prompt else []
        question = {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": _SOUND}}]}
        options = {"asr_options": {"language": hints.language}} if hints.language else {}
        body = {"model": self._route.model, "stream": False, **options, "messages": [*context, question]}
        before, _, after = json.dumps(body).rpartition(_SOUND)  # the last: a prompt may hold the same word
        return b"".join((f"{before}data:audio/wav;base64,".encode(), base64.b64encode(sound.wav()), after.encode()))

    def _read(self, body: bytes, hint: str | None) -> Transcript:
        try:
            document: object = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise AsrUnavailable("the vendor's answer is no JSON") from exc
        message = _message(document)
        text = _text(message)
        if not text and isinstance(document, dict) and (refusal := self._refusals.within(document)):
            raise refusal
        if text is None:
            raise AsrUnavailable("the vendor's answer holds no text")
        return heard(
            text,
            model=self._route.model,
            hint=hint,
            language=_language(message.get("annotations")),
        )


def _message(document: object) -> Mapping[str, object]:
    choices = document.get("choices") if isinstance(document, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    return message if isinstance(message, dict) else {}


def _text(message: Mapping[str, object]) -> str | None:
    """Return what was heard: whole, in parts as in the vendor's own protocol, or null for nothing."""
    match message.get("content", ...):
        case str() as text:
            return text
        case list() as parts:
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return "".join(text for text in texts if isinstance(text, str))
        case None:
            return ""
    return None


def _language(annotations: object) -> object:
    notes = annotations if isinstance(annotations, list) else []
    return next((note["language"] for note in notes if isinstance(note, dict) and "language" in note), None)
