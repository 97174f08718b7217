"""Speech to text, and which models there are."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from chatassist.domain import errors
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.envelope import AudioMissing, Envelope, FormInvalid, InvalidRequest
from chatassist.entrypoints.http.form import MAX_PARTS, MAX_TEXT, FileTooLarge, Form, NoRoom, Share, read_form
from chatassist.entrypoints.http.model_schemas import ModelsOut, models_out
from chatassist.entrypoints.http.openapi import CALLER, form_body, refusals
from chatassist.entrypoints.http.schemas import HintsIn, TranscriptOut, transcript_out

SPEECH_TO_TEXT = "/ai/speech-to-text"
FORM_BYTES = 2 * MAX_PARTS * MAX_TEXT
"""What a form may hold beside its file."""

LARGEST_AT_ONCE = 4
"""Of the largest recordings, how many this instance holds at a time; of usual ones that is a hundred times as many."""

router = APIRouter(tags=["ai"])

_SPEECH = (
    InvalidRequest,
    FormInvalid,
    AudioMissing,
    errors.AudioEmpty,
    errors.AudioUnsupported,
    errors.AudioCorrupt,
    errors.AudioTooLarge,
    errors.AudioTooShort,
    errors.AudioTooLong,
    errors.AudioNoSpeech,
    errors.ContentInvalid,
    errors.TooManyTranscriptions,
    errors.AsrBusy,
    errors.AsrNotConfigured,
    errors.AsrUnavailable,
    errors.AsrTimeout,
    errors.ShuttingDown,
)
_FORM = form_body("audio", "mp3, wav, m4a, aac, amr, ogg, webm or flac: the bytes decide, not the name", HintsIn)


@router.post(SPEECH_TO_TEXT, responses=refusals(*CALLER, *_SPEECH), openapi_extra=_FORM)
async def speech_to_text(request: Request, given: Given, caller: CallerNow) -> Envelope[TranscriptOut]:
    """Transcribe a recording. Nothing of it is kept."""
    with request.app.state.audio_room.share() as share:
        form = await _form(request, request.app.state.audio_bytes, share)
        if "audio" not in form.files:
            raise AudioMissing
        hints = _hints(form.texts).hints()
        return Envelope(data=transcript_out(await given.speech.transcribe(caller.user, form.files["audio"], hints)))


@router.get("/ai/models", responses=refusals(*CALLER, errors.TooManyReads))
async def models(given: Given, caller: CallerNow) -> Envelope[ModelsOut]:
    """Show which models a send may name: the operator's list, all of it at once."""
    return Envelope(data=models_out(await given.models.offered(caller.user)))


async def _form(request: Request, max_bytes: int, share: Share) -> Form:
    """Read the body, now that it is known who sends it."""
    try:
        return await read_form(request, max_file=max_bytes, take=share.take)
    except NoRoom as exc:
        raise errors.AsrBusy from exc
    except FileTooLarge as exc:
        raise errors.AudioTooLarge from exc
    except HTTPException as exc:  # of BodyLimit: the whole is too large, declared or counted
        raise errors.AudioTooLarge from exc


def _hints(texts: dict[str, Any]) -> HintsIn:
    try:
        return HintsIn.model_validate(texts)
    except ValidationError as exc:
        raise InvalidRequest(str(exc.errors()[0]["loc"][0])) from exc
