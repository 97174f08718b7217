"""Reasoning that a model writes into its answer: `<think>…</think>` before the text, as MiniMax and local models do.

Only what the answer begins with counts; once text has begun, whatever stands in it is text. Pure, and cut anywhere.
A closing tag without an opening one is text: when it comes, what was thought before it has been shown.
"""

import re

_NAMES = ("think", "thinking", "thought", "reasoning", "seed:think")
_ANY_NAME = "|".join(_NAMES)
_STARTS = "|".join({name[:end] for name in _NAMES for end in range(len(name) + 1)})
_MAX_OPENING = 128  # characters: nothing is held back for longer
_OPENING = re.compile(rf"<({_ANY_NAME})(?:\s[^<>]*)?(?<!/)>", re.IGNORECASE | re.ASCII)
_BEGUN = re.compile(rf"<(?:{_STARTS}|(?:{_ANY_NAME})\s[^<>]*)", re.IGNORECASE | re.ASCII)
_CLOSING = {name: re.compile(f"</{name}>", re.IGNORECASE | re.ASCII) for name in _NAMES}
_BLANKS = re.compile(r"\A[\s\ufeff\u200b]+")  # the last two are seen by nobody: BOM, zero width space


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
        self._held = _BLANKS.sub("", self._held)
        if opening := _OPENING.match(self._held, 0, _MAX_OPENING):
            self._name = opening[1].lower()
            self._closing, self._thinks = _CLOSING[self._name], False
            self._held = self._held[opening.end() :]
            return ""
        if not self._held or (len(self._held) < _MAX_OPENING and _BEGUN.fullmatch(self._held)):
            return None
        self.over = True
        return ""

    def _inside(self, closing: re.Pattern[str]) -> str | None:
        """Return the thinking that is held, up to the block's end; None if there is none yet."""
        if not self._thinks:  # models that shall not think write an empty block
            self._held = _BLANKS.sub("", self._held)
        if end := closing.search(self._held):
            thought, self._held, self._closing = self._held[: end.start()], self._held[end.end() :], None
            return thought
        cut = self._held.rfind("<")
        if cut < 0 or not f"</{self._name}>".startswith(self._held[cut:].lower()):
            cut = len(self._held)
        thought, self._held = self._held[:cut], self._held[cut:]
        self._thinks = self._thinks or bool(thought)
        return thought or None
