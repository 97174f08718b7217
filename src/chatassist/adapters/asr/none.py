"""The engine of a service that has none."""

from chatassist.domain.audio import Audio, Transcript
from chatassist.domain.errors import AsrNotConfigured
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber


class NoTranscriber(Transcriber):
    """Says that speech to text is not configured."""

    async def transcribe(self, audio: Audio, hints: Hints = NO_HINTS) -> Transcript:
        """Refuse; see Transcriber."""
        raise AsrNotConfigured
