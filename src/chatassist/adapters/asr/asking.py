"""What all ways to a vendor's speech to text share: what it is asked for, and what its answer or refusal means."""

import re
from collections.abc import Awaitable, Callable

from chatassist.adapters.clean_text import cleaned
from chatassist.adapters.openai_client import FOREIGN, Unsendable, VendorSilent, sorted_out
from chatassist.adapters.vendor import TranscriptionRoute
from chatassist.adapters.vendor_errors import Kind, Refused
from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.errors import AsrTimeout, AsrUnavailable, AudioTooLarge, AudioUnsupported, ChatAssistError
from chatassist.domain.ports.asr import NO_HINTS, Hints

MAX_BODY = 1024 * 1024  # bytes; an hour of speech is some 50 KB of text
_LANGUAGE = re.compile(r"[a-z]{2,3}")
# SenseVoice marks language, emotion and events by tags, or by what FunASR makes of them: pictures nobody can have said.
_TAG = re.compile(r"<\|([^<>|]{0,32})\|>")
_PICTURES = re.compile("[\U0001f300-\U0001faff\u2753\ufe0f]")
_PASSING = (Kind.RATE, Kind.OVERLOAD, Kind.FAULT)


async def asked(
    ask: Callable[[Sound, Hints], Awaitable[Transcript]], sound: Sound, hints: Hints, *, route: TranscriptionRoute
) -> Transcript:
    """Return what a vendor makes of a recording; without the hints once more if it refuses a parameter.

    `ask` raises Refused and what is FOREIGN; what comes out is what a Transcriber may raise.
    """
    hints = hints if route.hints else NO_HINTS
    try:
        try:
            return await ask(sound, hints)
        except Refused as refused:
            if refused.kind is not Kind.PARAMETER or refused.status == 415 or hints == NO_HINTS:
                raise
        return await ask(sound, NO_HINTS)
    except Refused as refused:
        raise _refused(refused) from refused
    except FOREIGN as exc:
        raise _translated(exc) from exc


def heard(text: str, *, model: str, hint: str | None = None, language: object = None) -> Transcript:
    """Return what a vendor heard. `language` is what it says of the recording: any nonsense."""
    tags = _TAG.findall(text)
    words = _TAG.sub("", text)
    if "sensevoice" in model.lower():
        words = _PICTURES.sub("", words)
    told = (each for each in (language, *tags[:1]) if isinstance(each, str) and _LANGUAGE.fullmatch(each))
    return Transcript(text=cleaned(words).strip(), language=next(told, hint))


def _refused(refused: Refused) -> ChatAssistError:
    """Only the recording differs from call to call: what is wrong with a request is wrong with the recording."""
    if refused.kind is Kind.TOO_LONG:
        return AudioTooLarge(str(refused))
    if refused.kind is Kind.PARAMETER or refused.status == 415:
        return AudioUnsupported(str(refused))
    error = AsrUnavailable(str(refused), retry_after=refused.retry_after)
    if refused.kind not in _PASSING:
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
