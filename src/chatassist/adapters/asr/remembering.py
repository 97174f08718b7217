"""A transcriber that remembers for a few minutes: a phone that lost the answer asks again, and pays for it once.

What is the same sound was recorded once: whoever has it heard it all, so whose it is need not be asked.
"""

import asyncio
import hashlib
from dataclasses import dataclass

from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber


@dataclass(slots=True)
class _Call:
    task: asyncio.Task[Transcript]
    waiting: int = 0


class RememberingTranscriber(Transcriber):
    """Asks once about the same sound with the same hints, and again after `seconds`, or `texts` other ones."""

    def __init__(self, transcriber: Transcriber, *, seconds: float = 300.0, texts: int = 1000) -> None:
        self._transcriber = transcriber
        self._seconds = seconds
        self._texts = texts
        self._calls: dict[bytes, _Call] = {}

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Ask, or say what was heard before; who asks while it is asked waits with him. See Transcriber."""
        key = _key(sound, hints)
        call = self._calls.get(key) or self._begin(key, sound, hints)
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting and not call.task.done():
                self._forget(key, call)
                call.task.cancel()
            del call  # it holds the error, the error this frame with the sound in it

    def _begin(self, key: bytes, sound: Sound, hints: Hints) -> _Call:
        call = self._calls[key] = _Call(asyncio.create_task(self._transcriber.transcribe(sound, hints)))
        call.task.add_done_callback(lambda _: self._ended(key, call))
        return call

    def _ended(self, key: bytes, call: _Call) -> None:
        if call.task.cancelled() or call.task.exception():
            self._forget(key, call)
            return
        asyncio.get_running_loop().call_later(self._seconds, self._forget, key, call)
        over = [each for each, one in self._calls.items() if one.task.done()]
        for each in over[: max(len(over) - self._texts, 0)]:  # the oldest first
            del self._calls[each]

    def _forget(self, key: bytes, call: _Call) -> None:
        if self._calls.get(key) is call:
            del self._calls[key]


def _key(sound: Sound, hints: Hints) -> bytes:
    digest = hashlib.sha256(repr((hints.language, hints.prompt)).encode("utf-8", "surrogatepass"))
    digest.update(sound.samples)
    return digest.digest()
