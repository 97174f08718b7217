"""Recordings, the sound in them, and what was said."""

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class AudioKind(StrEnum):
    """A format of recordings, as its bytes show it."""

    MP3 = "mp3"
    WAV = "wav"
    M4A = "m4a"
    AAC = "aac"
    AMR = "amr"
    OGG = "ogg"
    WEBM = "webm"
    FLAC = "flac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """A recording. What it was called or declared to be counts nowhere."""

    data: bytes = field(repr=False)
    kind: AudioKind


SAMPLE_RATE = 16_000
"""Samples a second, as speech engines hear."""

_WIDTH = 2  # bytes of a sample
_SPOT = 320  # samples: 20 ms, less than a pause between two words
_SEARCHED = 8.0  # seconds before a limit, in which a pause is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """What is to be heard in a recording: one channel, 16 kHz, whole numbers of 16 bits, little-endian.

    `clipped`: it was recorded too loud, so that a part of it is lost.
    """

    samples: bytes = field(repr=False)
    clipped: bool = False

    @property
    def seconds(self) -> float:
        """How long it is, exactly."""
        return len(self.samples) / _WIDTH / SAMPLE_RATE

    def wav(self) -> bytes:
        """Return it as a file that every engine can read."""
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(_WIDTH)
            writer.setframerate(SAMPLE_RATE)
            writer.writeframes(self.samples)
        return file.getvalue()

    def within(self, seconds: float) -> Iterator["Sound"]:
        """Yield it in order, in parts of at most so many seconds, parted at the quietest places near that limit."""
        rest = self.samples
        most = int(seconds * SAMPLE_RATE) * _WIDTH
        while len(rest) > most:
            end = _quietest(rest, most)
            yield Sound(samples=rest[:end], clipped=self.clipped)
            rest = rest[end:]
        yield Sound(samples=rest, clipped=self.clipped)


def _quietest(samples: bytes, end: int) -> int:
    """Return the middle of the quietest 20 ms shortly before `end`; the last of several."""
    spot = _SPOT * _WIDTH
    begin = max(end - int(min(_SEARCHED, end / _WIDTH / SAMPLE_RATE / 2) * SAMPLE_RATE) * _WIDTH, 0)
    heard = memoryview(samples).cast("h")
    places = range(begin, end - spot + 1, spot)
    quiet = min(reversed(places), key=lambda place: _span(heard[place // _WIDTH : (place + spot) // _WIDTH]))
    return quiet + spot // 2


def _span(part: memoryview) -> int:
    return int(max(part)) - int(min(part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What was said. `language`: a code such as zh, where known; `duration`: of the recording in seconds, if known."""

    text: str = field(repr=False)
    language: str | None = None
    duration: float | None = None
