"""Where a list goes on, as a text that only the same list takes back.

A cursor holds no secret and is not secret: whoever forges one finds nothing but his own, since a list is always one
user's. The digest is there to refuse what is damaged, or comes from another list or another user.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from chatassist.domain.errors import BadCursor

_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,400})\.([0-9a-f]{16})")


def cursor_of(values: Sequence[Any], *about: str) -> str:
    """Return a cursor for these values (JSON's), in the list that these texts tell apart from all others."""
    payload = base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")
    return f"{payload}.{_digest(payload, about)}"


def values_of(cursor: str, *about: str) -> list[Any]:
    """Return the values of a cursor of this list. Raises BadCursor."""
    found = _CURSOR.fullmatch(cursor)
    if found is None or found[2] != _digest(found[1], about):
        raise BadCursor
    try:
        values = json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
    except (binascii.Error, ValueError) as exc:
        raise BadCursor from exc
    if not isinstance(values, list):
        raise BadCursor
    return values


def _digest(payload: str, about: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([payload, *about]).encode()).hexdigest()[:16]
