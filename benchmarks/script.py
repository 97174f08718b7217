"""What vendor, load and floor have to agree on: the text of a reply, and the pace at which it is spoken.

The pace travels inside the user's question, so that one vendor and one server serve every scenario.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

MODEL = "bench"
DAY_ZONE = ZoneInfo("Asia/Shanghai")  # the service's default
INPUT_TOKENS, OUTPUT_TOKENS = 620, 310  # what the vendor claims to have counted

_PHRASE = "今天的天气很好，适合出门走走。Take an umbrella with you. "
TEXT = (_PHRASE * 10)[:400]
"""The reply to every question: 400 characters, Chinese and Latin."""

_MARK = re.compile(rb"@(\d+),(\d+),(\d+)@")


@dataclass(frozen=True, slots=True)
class Pace:
    """How a reply is spoken: in how many pieces, and milliseconds before the first and between two of them."""

    pieces: int = 20
    first: int = 0
    gap: int = 0

    def question(self) -> str:
        """Return a question that makes the vendor answer at this pace."""
        return f"@{self.pieces},{self.first},{self.gap}@ 请介绍一下今天的天气，并给出出行建议。"

    @classmethod
    def asked(cls, body: bytes) -> "Pace":
        """Return the pace that a prompt's last message asks for; the history before it may hold others."""
        start = body.rfind(b'"@')
        found = _MARK.match(body, start + 1)
        if found is None:
            raise ValueError("the prompt's last message names no pace")
        return cls(*(int(number) for number in found.groups()))


@cache
def spoken(pieces: int) -> tuple[str, ...]:
    """Return TEXT cut into so many pieces, of equal length but for rounding."""
    cuts = [len(TEXT) * cut // pieces for cut in range(pieces + 1)]
    return tuple(TEXT[start:end] for start, end in pairwise(cuts))
