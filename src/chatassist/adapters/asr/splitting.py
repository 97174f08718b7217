"""A transcriber for engines that take only so many seconds at a time (Zhipu: 30)."""

from itertools import pairwise

from chatassist.domain.audio import Sound, Transcript
from chatassist.domain.ports.asr import NO_HINTS, Hints, Transcriber


class SplittingTranscriber(Transcriber):
    """Asks about one part after another, none longer than `most` seconds, and puts together what is heard in them."""

    def __init__(self, transcriber: Transcriber, *, most: float) -> None:
        self._transcriber = transcriber
        self._most = most

    async def transcribe(self, sound: Sound, hints: Hints = NO_HINTS) -> Transcript:
        """Ask as often as it takes; see Transcriber."""
        heard = [await self._transcriber.transcribe(part, hints) for part in sound.within(self._most)]
        language = next((each.language for each in heard if each.language and each.text), heard[0].language)
        return Transcript(text=_joined([each.text for each in heard if each.text]), language=language)


def _joined(texts: list[str]) -> str:
    """Put a space between two words of letters; Chinese has none."""
    gaps = ["" if _is_wide(before[-1]) or _is_wide(after[0]) else " " for before, after in pairwise(texts)]
    return "".join(text + gap for text, gap in zip(texts, [*gaps, ""], strict=False))


def _is_wide(character: str) -> bool:
    return character >= "\u2e80"  # from here on: the writing of China, Japan and Korea, and its punctuation
