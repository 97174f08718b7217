"""The transcriber that needs no engine: it says what a test gives it."""

import asyncio
from collections import deque

from chatassist.adapters.clean_text import cleaned
from chatassist.domain.audio import Audio, Transcript
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber

Step = str | Transcript | Exception | asyncio.Event


class ScriptedTranscriber(Transcriber):
    """Plays one step a call: says a text, raises an exception, or waits for an event and goes on with the next.

    `heard` keeps what it was given, in order. When no step is left it says nothing, as of a silent recording.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = deque(steps)
        self.heard: list[tuple[Audio, Hints]] = []

    def plays(self, *steps: Step) -> None:
        """Add steps."""
        self._steps.extend(steps)

    async def transcribe(self, audio: Audio, hints: Hints = NO_HINTS) -> Transcript:
        """Play the next step; see Transcriber."""
        self.heard.append((audio, hints))
        while self._steps:
            match self._steps.popleft():
                case asyncio.Event() as event:
                    await event.wait()
                case Exception() as error:
                    raise error
                case str() as text:
                    return Transcript(text=cleaned(text).strip(), language=hints.language)
                case Transcript() as transcript:
                    return transcript
        return Transcript(text="")
