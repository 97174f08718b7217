"""The synthesiser that needs no engine: a quiet tone, as long as somebody would speak."""

import asyncio
import io
import math
import wave
from array import array
from collections import deque

from chatassist.domain.audio import Audio, AudioKind
from chatassist.domain.ports.tts import Script, Synthesiser

Step = Audio | Exception | asyncio.Event

_RATE = 16_000  # samples a second
_PERIOD = 40  # samples: 400 Hz
_LOUDNESS = 3_000  # of 32,767
_PERIODS_PER_CHAR = 80  # a fifth of a second: five characters a second is how Chinese is read aloud
_LONGEST = 400 * 30  # periods: half a minute, 1 MB


class ScriptedSynthesiser(Synthesiser):
    """Plays one step a call: returns a recording, raises an exception, or waits for an event and goes on with the next.

    `scripts` keeps what it was given, in order. When no step is left it answers with a tone.
    """

    def __init__(self, *steps: Step, max_chars: int = 4096) -> None:
        self._steps = deque(steps)
        self._max_chars = max_chars
        self.scripts: list[Script] = []

    def plays(self, *steps: Step) -> None:
        """Add steps."""
        self._steps.extend(steps)

    @property
    def max_chars(self) -> int:
        """As given."""
        return self._max_chars

    async def synthesise(self, script: Script) -> Audio:
        """Play the next step; see Synthesiser."""
        script.check(self._max_chars)
        self.scripts.append(script)
        while self._steps:
            match self._steps.popleft():
                case asyncio.Event() as event:
                    await event.wait()
                case Exception() as error:
                    raise error
                case Audio() as audio:
                    return audio
        return Audio(data=_tone(script), kind=AudioKind.WAV)


def _tone(script: Script) -> bytes:
    periods = min(max(1, round(len(script.text) * _PERIODS_PER_CHAR / script.speed)), _LONGEST)
    wanted = array("h", (round(_LOUDNESS * math.sin(math.tau * place / _PERIOD)) for place in range(_PERIOD)))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(wanted.itemsize)
        sound.setframerate(_RATE)
        sound.writeframes(wanted.tobytes() * periods)
    return file.getvalue()
