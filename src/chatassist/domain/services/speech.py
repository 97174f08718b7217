"""Speech to text: one recording, one transcript, within one deadline. Nothing of either is kept."""

import asyncio
import logging
from dataclasses import dataclass, replace

from chatassist.domain.audio import Audio, Sound, Transcript
from chatassist.domain.errors import (
    AsrBusy,
    AsrTimeout,
    AudioEmpty,
    AudioNoSpeech,
    AudioTooLarge,
    ContentInvalid,
    InvalidInput,
    ShuttingDown,
    Unavailable,
)
from chatassist.domain.model import User, is_clean
from chatassist.domain.ports.asr import NO_HINTS, Hints, Listener, Recognise, Transcriber
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.usage import Count, Used

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRules:
    """How many bytes a recording may have, and how many seconds its transcription may take, queueing included.

    `at_once`: recordings under way on this instance, each of which holds its bytes and up to 2 MB of sound a minute.
    """

    max_bytes: int = 24 * 1024 * 1024
    deadline: float = 45.0
    at_once: int = 64


class SpeechService:
    """Transcribes what users say."""

    def __init__(
        self,
        transcriber: Transcriber,
        listener: Listener,
        recognise: Recognise,
        *,
        limiter: Limiter,
        count: Count,
        rules: SpeechRules | None = None,
    ) -> None:
        self._transcriber = transcriber
        self._listener = listener
        self._recognise = recognise
        self._limiter = limiter
        self._count = count
        self._rules = rules or SpeechRules()
        self._running: dict[asyncio.Future[None], asyncio.Timeout] = {}
        self._closing = False

    async def transcribe(self, user: User, data: bytes, hints: Hints = NO_HINTS) -> Transcript:
        """Return what the recording says. What is refused for its own sake costs neither limit nor engine.

        Its duration is that of the sound. Raises AudioEmpty, AudioTooLarge, ContentInvalid (the prompt), ShuttingDown,
        TooManyTranscriptions, AsrBusy, AsrTimeout, and what Listener and Transcriber do.
        """
        audio = self._checked(data, hints)
        if self._closing:
            raise ShuttingDown
        if len(self._running) >= self._rules.at_once:
            raise AsrBusy
        await self._limiter.hit(Rule.SPEECH, user.id)
        about = {"user_id": user.id, "kind": audio.kind, "bytes": len(data)}
        try:
            sound, transcript = await self._in_time(audio, hints)
        except (Unavailable, InvalidInput) as error:  # how many of them there are, an operator wants to know
            level = logging.WARNING if isinstance(error, Unavailable) else logging.INFO
            log.log(level, "transcription failed", extra={**about, "reason": error.slug, "detail": str(error)})
            raise
        text = transcript.text.strip()
        about |= {"seconds": round(sound.seconds, 2), "clipped": sound.clipped, "chars": len(text)}
        log.info("transcribed", extra=about)
        if not text:
            raise AudioNoSpeech
        await self._count(user.openid, Used(audio_ms=round(sound.seconds * 1000)))
        return replace(transcript, text=text, duration=round(sound.seconds, 3))

    async def drain(self, seconds: float) -> None:
        """Take no new recordings, give the running ones so many seconds, then end the rest with ShuttingDown."""
        self._closing = True
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for deadline in self._running.values():
            if not deadline.expired():
                deadline.reschedule(0)

    def _checked(self, data: bytes, hints: Hints) -> Audio:
        if not data:
            raise AudioEmpty
        if len(data) > self._rules.max_bytes:
            raise AudioTooLarge
        if hints.prompt and not is_clean(hints.prompt):
            raise ContentInvalid
        return self._recognise(data)

    async def _in_time(self, audio: Audio, hints: Hints) -> tuple[Sound, Transcript]:
        deadline = asyncio.timeout(self._rules.deadline)
        over = asyncio.get_running_loop().create_future()
        self._running[over] = deadline
        try:
            async with deadline:
                sound = await self._listener.listen(audio)
                return sound, await self._transcriber.transcribe(sound, hints)
        except TimeoutError as exc:
            raise (ShuttingDown if self._closing else AsrTimeout) from exc
        finally:
            del self._running[over]
            over.set_result(None)
