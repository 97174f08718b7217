"""What may be searched for, and what is shown of the place where it was found."""

import re

from chatassist.domain.errors import ContentInvalid, KeywordEmpty, KeywordTooLong
from chatassist.domain.model import is_clean

KEYWORD_CHARS = 50
LEAD = 20
"""Characters shown before what was found."""
SHOWN = 80
"""Characters shown in all: more than the lead and the longest keyword together."""

_LINE_BREAK = re.compile(r"\s*[\t\n\u2028\u2029]\s*")
_MORE = "…"


def checked_keyword(text: str) -> str:
    """Return the keyword as it is looked for: trimmed, as what is said is.

    Raises ContentInvalid, KeywordEmpty, KeywordTooLong.
    """
    if not is_clean(text):
        raise ContentInvalid
    keyword = text.strip()
    if not keyword:
        raise KeywordEmpty
    if len(keyword) > KEYWORD_CHARS:
        raise KeywordTooLong
    return keyword


def excerpt_start(at: int) -> int:
    """Return where an excerpt begins whose hit lies at `at`, counted from 0 in the whole text."""
    return max(at - LEAD, 0)


def snippet_of(excerpt: str, at: int) -> str:
    """Return what is shown of a hit, in one line. `excerpt`: from its start on, one character more than is shown."""
    before = _MORE if excerpt_start(at) else ""
    after = _MORE if len(excerpt) > SHOWN else ""
    return f"{before}{_LINE_BREAK.sub(' ', excerpt[:SHOWN]).strip()}{after}"
