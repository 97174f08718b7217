"""Places in lists, as clients carry them from one page to the next: opaque, and good for one list of one user.

They are no secret and give no right, since every list is its own user's anyway: they are guarded against mistakes.
"""

import base64
import binascii
import hashlib
import re
from typing import Annotated

from fastapi import Query

from chatassist.domain.errors import BadCursor

_FORM = re.compile(r"[A-Za-z0-9_-]{16,512}")
_MARK_BYTES = 9

Cursor = Annotated[str | None, Query(description="`nextCursor` of the page before; without it, the first page")]
Limit = Annotated[int, Query(ge=1, le=100, description="How many items a page may have")]


def cursor_of(place: str, *scope: str) -> str:
    """Return the cursor for a place in the list that `scope` describes: its kind, its user, what it was asked for."""
    return base64.urlsafe_b64encode(_mark(place, scope) + place.encode()).rstrip(b"=").decode()


def place_in(cursor: str, *scope: str) -> str:
    """Return the place that a cursor of this list means. Raises BadCursor."""
    try:
        if not _FORM.fullmatch(cursor):
            raise BadCursor
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        place = raw[_MARK_BYTES:].decode()
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise BadCursor from exc
    if cursor_of(place, *scope) != cursor:
        raise BadCursor
    return place


def _mark(place: str, scope: tuple[str, ...]) -> bytes:
    described = "\0".join((*scope, place)).encode(errors="surrogatepass")
    return hashlib.sha256(described).digest()[:_MARK_BYTES]
