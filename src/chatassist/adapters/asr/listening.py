"""What stands in front of every engine: a recording is decoded, brought to an even level, and let through if it speaks.

One thread does it for all, so that a stampede costs one core, and memory for one recording beside those that wait. It
lets go of what nobody waits for any more within some milliseconds.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from chatassist.adapters.asr.decode import decode
from chatassist.adapters.asr.gate import SpeechGate, check_processor
from chatassist.adapters.asr.level import level_of, levelled
from chatassist.domain.audio import SAMPLE_RATE, Audio, Sound
from chatassist.domain.errors import AudioNoSpeech, AudioTooShort
from chatassist.domain.ports.asr import Listener

_SHORTEST = 0.3  # seconds: a tap where a hold was meant


class PyAvListener(Listener):
    """Listens by PyAV and Silero. `most`: seconds of sound that a recording may hold.

    Raises ValueError, in a sentence for the operator, if it could never work.
    """

    def __init__(self, *, most: float) -> None:
        check_processor()
        self._most = most
        self._gate: SpeechGate | None = None  # the thread's own
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="listening")

    async def aclose(self) -> None:
        """Drop what waits."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def listen(self, audio: Audio) -> Sound:
        """Let the thread do it; see Listener."""
        given_up = threading.Event()
        job = self._worker.submit(self._work, audio, given_up)
        try:
            return await asyncio.wrap_future(job)
        finally:
            given_up.set()
            del job  # it holds the error, the error this frame: a ring that would keep megabytes of samples for a while

    def _work(self, audio: Audio, given_up: threading.Event) -> Sound:
        samples = decode(audio, most=self._most, given_up=given_up.is_set)
        if len(samples) < 2 * _SHORTEST * SAMPLE_RATE:
            raise AudioTooShort
        level = level_of(samples)
        samples = levelled(samples, level)
        self._gate = self._gate or SpeechGate()
        if not self._gate.opens_for(samples, peak=level.peak, given_up=given_up.is_set):
            raise AudioNoSpeech
        return Sound(samples=samples, clipped=level.clipped)
