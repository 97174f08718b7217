"""A listener and a transcriber that need no engine: they hear the bytes themselves, and say what a test gives them."""

import asyncio
from collections import deque

from chatassist.adapters.clean_text import cleaned
from chatassist.domain.audio import Audio, Sound, Transcript
from chatassist.domain.ports.asr import NO_HINTS, Hints, Listener, Transcriber

Step = str | Transcript | Exception | asyncio.Event


class ScriptedListener(Listener):
    """Takes a recording's bytes for its samples, once the errors and events that it is given are played."""

    def __init__(self, *steps: Exception | asyncio.Event) -> None:
        self._steps = deque(steps)

    async def listen(self, audio: Audio) -> Sound:
        """Play the next step, if there is one; see Listener."""
        match self._steps.popleft() if self._steps else None:
            case asyncio.Event() as event:
                await event.wait()
            case Exception() as error:
                raise error
        return Sound(samples=audio.data)


class ScriptedTranscriber(Transcriber):
    """Plays one step a call: says a text, raises an exception, or waits for an event and goes on with the next.

    `heard` keeps what it was given, in order. When no step is left it says nothing, as of a silent recording.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = deque(steps)
        self.heard: list[tuple[Sound, Hints]] = []

    def plays(self, *steps: Step) -> None:
        """Add steps."""
        self._steps.extend(steps)

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Play the next step; see Transcriber."""
        self.heard.append((sound, hints))
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
