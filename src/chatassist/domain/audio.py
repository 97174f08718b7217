"""Recordings, and what was said in them."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What was said. `language`: a code such as zh, where known; `duration`: of the recording in seconds, if known."""

    text: str = field(repr=False)
    language: str | None = None
    duration: float | None = None
