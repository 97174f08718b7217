"""The engine of a service that has none."""

from chatassist.domain.audio import Audio, Sound, Transcript
from chatassist.domain.errors import AsrNotConfigured
from chatassist.domain.ports.asr import NO_HINTS, Hints, Listener, Transcriber


class NoListener(Listener):
    """Says that speech to text is not configured, before any work is done on a recording."""

    async def listen(self, audio: Audio) -> Sound:
        """Refuse; see Listener."""
        raise AsrNotConfigured


class NoTranscriber(Transcriber):
    """Says that speech to text is not configured."""

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Refuse; see Transcriber."""
        raise AsrNotConfigured
