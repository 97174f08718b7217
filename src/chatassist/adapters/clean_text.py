"""Makes a vendor's text fit to store and show: whole characters, no control character but tab and newline."""

import re

from chatassist.domain.model import is_clean

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # Unicode category Cc without tab and newline
_HIGH_SURROGATES = ("\ud800", "\udbff")
_REPLACEMENT = "\ufffd"


class CleanText:
    """Cleans text that comes in pieces; holds back half a character until its other half arrives."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """Return what of `piece`, and of a half held back, is whole by now."""
        if not self._half and is_clean(piece):
            return piece
        text = self._half + piece
        first, last = _HIGH_SURROGATES
        self._half = text[-1] if first <= text[-1:] <= last else ""
        return _repaired(text.removesuffix(self._half))

    def end(self) -> str:
        """Return a replacement character for a half that never became whole."""
        rest, self._half = self._half, ""
        return _REPLACEMENT if rest else ""


def _repaired(text: str) -> str:
    # UTF-16 is what surrogates come from: its decoder joins the pairs and replaces each lone one, and nothing else.
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _CONTROL.sub("", joined)


def cleaned(text: str) -> str:
    """Return a text that is whole already, fit to store and show."""
    clean = CleanText()
    return clean.feed(text) + clean.end()
