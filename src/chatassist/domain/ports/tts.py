"""Text to speech: words go in, one short recording comes out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from chatassist.domain.audio import Audio

_SLOWEST, _FASTEST = 0.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What is to be said. `voice`: one of the engine's, its usual one if None; `speed`: times the usual, 0.5 to 2."""

    text: str = field(repr=False)
    voice: str | None = None
    speed: float = 1.0

    def check(self, max_chars: int) -> None:
        """Raise ValueError for a text that is blank or longer, or a speed that nobody follows: a caller's mistake."""
        if not self.text.strip():
            raise ValueError("there is nothing to say")
        if len(self.text) > max_chars:
            raise ValueError(f"more than {max_chars} characters cannot be said at once")
        if not _SLOWEST <= self.speed <= _FASTEST:
            raise ValueError(f"the speed is not between {_SLOWEST} and {_FASTEST}")


class Synthesiser(ABC):
    """Speaks texts. Wrappers (cache, splitting) are Synthesisers around Synthesisers."""

    @property
    @abstractmethod
    def max_chars(self) -> int:
        """Most characters (Unicode code points) of one script: who has more to say splits it."""

    @abstractmethod
    async def synthesise(self, script: Script) -> Audio:
        """Return the whole recording, never an empty one, with the kind that its bytes show. Twice costs twice.

        What is markup is spoken too: who calls takes it out. An engine that knows neither voices nor speeds does
        without. No total deadline: that is the caller's; cancelling the caller gives the recording up.
        Raises ValueError (see `Script.check`), TtsNotConfigured, TtsUnavailable (also for a voice that the engine does
        not have), TtsTimeout.
        """
