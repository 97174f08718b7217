"""Speech to text: a recording goes in, what was said comes out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from chatassist.domain.audio import Audio, Transcript

Recognise = Callable[[bytes], Audio]
"""Return the recording with the kind that its bytes show. Raises AudioUnsupported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What may help an engine. `language`: a code such as zh; `prompt`: words or names that may occur."""

    language: str | None = None
    prompt: str | None = field(default=None, repr=False)


NO_HINTS = Hints()


class Transcriber(ABC):
    """Transcribes recordings. Wrappers (cache, limits) are Transcribers around Transcribers."""

    @abstractmethod
    async def transcribe(self, audio: Audio, hints: Hints = NO_HINTS) -> Transcript:
        """Return what was said; an empty text when nothing was heard. Twice gives the same cost twice.

        An engine that cannot use a hint does without it. No total deadline: that is the caller's; cancelling the
        caller gives the recording up. Text is clean (see `is_clean`) and stripped.
        Raises AudioUnsupported, AudioTooLarge, AsrBusy, AsrNotConfigured, AsrUnavailable, AsrTimeout.
        """
