"""Speech to text: a recording goes in, the sound in it is found, and what was said comes out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from chatassist.domain.audio import Audio, Sound, Transcript

Recognise = Callable[[bytes], Audio]
"""Return the recording with the kind that its bytes show. Raises AudioUnsupported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What may help an engine. `language`: a code such as zh; `prompt`: words or names that may occur."""

    language: str | None = None
    prompt: str | None = field(default=None, repr=False)


NO_HINTS = Hints()


class Listener(ABC):
    """Takes recordings apart, so that no engine has to, and none is asked about what nobody says anything in."""

    @abstractmethod
    async def listen(self, audio: Audio) -> Sound:
        """Return the sound of a recording in which somebody speaks, brought to an even level.

        The same recording gives the same sound. Cancelling the caller gives the work up.
        Raises AudioUnsupported, AudioCorrupt, AudioTooShort, AudioTooLong, AudioNoSpeech, AsrNotConfigured.
        """


class Transcriber(ABC):
    """Transcribes speech. Wrappers (cache, limits) are Transcribers around Transcribers."""

    @abstractmethod
    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Return what was said; an empty text when nothing was heard. Twice gives the same cost twice.

        An engine that cannot use a hint does without it. No total deadline: that is the caller's; cancelling the
        caller gives the recording up. Text is clean (see `is_clean`) and stripped.
        Raises AudioUnsupported, AudioTooLarge, AsrBusy, AsrNotConfigured, AsrUnavailable, AsrTimeout.
        """
