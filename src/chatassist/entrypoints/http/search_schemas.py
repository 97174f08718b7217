"""What goes over the wire about searching; the rules of `schemas` hold here too."""

from collections.abc import Sequence

from chatassist.domain.ports.search import Hit
from chatassist.entrypoints.http.schemas import Time, Wire


class HitOut(Wire):
    """A message that holds the keyword. `snippet`: one line around its first place there."""

    session_id: str
    title: str
    message_id: str
    snippet: str
    time: Time


class FoundOut(Wire):
    """A page of hits, newest first: it may be short, or empty, and yet not the last."""

    items: Sequence[HitOut]
    next_cursor: str | None
    has_more: bool


def found_out(hits: Sequence[Hit], next_cursor: str | None) -> FoundOut:
    """Return the wire form of a page."""
    items = [
        HitOut(
            session_id=hit.session_id,
            title=hit.title,
            message_id=hit.message_id,
            snippet=hit.snippet,
            time=hit.at,
        )
        for hit in hits
    ]
    return FoundOut(items=items, next_cursor=next_cursor, has_more=next_cursor is not None)
