"""Reasoning that a model writes into its answer: `<think>…</think>` before the text, as MiniMax and local models do.

Only what the answer begins with counts; once text has begun, whatever stands in it is text. Pure, and cut anywhere.
"""

import re

_NAMES = ("think", "thinking", "thought", "reasoning")
_OPENING = re.compile(f"<({'|'.join(_NAMES)})>", re.IGNORECASE | re.ASCII)
_CLOSING = {name: re.compile(f"</{name}>", re.IGNORECASE | re.ASCII) for name in _NAMES}
_OPENINGS = tuple(f"<{name}>" for name in _NAMES)


class InlineThinking:
    """Takes the leading blocks out of an answer that comes in pieces, and the blanks before, between and after them."""

    def __init__(self) -> None:
        self.over = False
        """Whether text has begun: from then on nothing need be fed."""
        self._closing: re.Pattern[str] | None = None
        self._name = ""
        self._thinks = False
        self._held = ""

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the text and the thinking that are certain by now."""
        thinking = ""
        self._held += piece
        while not self.over:
            thought = self._inside(self._closing) if self._closing else self._between()
            if thought is None:
                return "", thinking
            thinking += thought
        text, self._held = self._held, ""
        return text, thinking

    def end(self) -> tuple[str, str]:
        """Return what was held back: a tag that never became whole is what it stands in."""
        rest, self._held = self._held, ""
        return ("", rest) if self._closing else (rest, "")

    def _between(self) -> str | None:
        """Look for a block; None if it takes more to tell."""
        self._held = self._held.lstrip()
        if opening := _OPENING.match(self._held):
            self._name = opening[1].lower()
            self._closing, self._thinks = _CLOSING[self._name], False
            self._held = self._held[opening.end() :]
            return ""
        begun = self._held.lower()
        if any(tag.startswith(begun) for tag in _OPENINGS):  # also where nothing but blanks came
            return None
        self.over = True
        return ""

    def _inside(self, closing: re.Pattern[str]) -> str | None:
        """Return the thinking that is held, up to the block's end; None if there is none yet."""
        if not self._thinks:  # models that shall not think write an empty block
            self._held = self._held.lstrip()
        if end := closing.search(self._held):
            thought, self._held, self._closing = self._held[: end.start()], self._held[end.end() :], None
            return thought
        cut = self._held.rfind("<")
        if cut < 0 or not f"</{self._name}>".startswith(self._held[cut:].lower()):
            cut = len(self._held)
        thought, self._held = self._held[:cut], self._held[cut:]
        self._thinks = self._thinks or bool(thought)
        return thought or None
