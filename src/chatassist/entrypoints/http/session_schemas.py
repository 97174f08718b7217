"""What goes over the wire about sessions and their history; the rules of `schemas` hold here too."""

from datetime import UTC, datetime
from typing import Any

from pydantic import Field, StrictBool

from chatassist.domain.errors import BadCursor
from chatassist.domain.model import Session, is_id
from chatassist.domain.ports.archive import Mark
from chatassist.domain.services.history import Item, Page
from chatassist.domain.services.sessions import Listing
from chatassist.domain.turns import Message, Status
from chatassist.entrypoints.http.chat_schemas import MessageOut, reply_out
from chatassist.entrypoints.http.cursors import cursor_of, values_of
from chatassist.entrypoints.http.schemas import Asked, Time, Wire

_SESSIONS = "sessions"

# --- Requests -------------------------------------------------------------------------------------------------------


class SessionIn(Asked):
    """What is to be different about a session; null or absent stays as it is."""

    title: str | None = Field(default=None, description="1 to 60 characters after trimming")
    pinned: StrictBool | None = None


def mark_in(cursor: str, user_id: str, keyword: str) -> Mark:
    """Return where a list of sessions goes on. Raises BadCursor."""
    match values_of(cursor, _SESSIONS, user_id, keyword):
        case [bool(pinned), str(at), str(session_id)] if is_id(session_id):
            return Mark(pinned=pinned, at=_moment(at), session_id=session_id)
    raise BadCursor


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise BadCursor from exc
    if at.tzinfo is not UTC:
        raise BadCursor
    return at


# --- Answers --------------------------------------------------------------------------------------------------------


class SessionOut(Wire):
    """A session as a list shows it."""

    session_id: str
    title: str
    preview: str
    pinned: bool
    message_count: int
    running: bool
    created_at: Time
    updated_at: Time


class SessionsOut(Wire):
    """Some sessions; `nextCursor` is null at the end."""

    items: list[SessionOut]
    next_cursor: str | None
    has_more: bool


class HistoryOut(Wire):
    """Some messages of a session, oldest first."""

    items: list[MessageOut]
    has_more_before: bool
    has_more_after: bool


def session_out(session: Session) -> SessionOut:
    """Return the wire form of a session."""
    return SessionOut(
        session_id=session.id,
        title=session.title,
        preview=session.preview,
        pinned=session.pinned,
        message_count=session.messages,
        running=session.running > 0,
        created_at=session.created_at,
        updated_at=session.updated_at,
    )


def sessions_out(listing: Listing, user_id: str, keyword: str) -> SessionsOut:
    """Return the wire form of some sessions of this user's list."""
    rest = listing.rest
    values: list[Any] = [rest.pinned, rest.at.isoformat(), rest.session_id] if rest else []
    return SessionsOut(
        items=[session_out(session) for session in listing.sessions],
        next_cursor=cursor_of(values, _SESSIONS, user_id, keyword) if rest else None,
        has_more=rest is not None,
    )


def history_out(page: Page) -> HistoryOut:
    """Return the wire form of a page of history."""
    return HistoryOut(
        items=[_item_out(item) for item in page.items],
        has_more_before=page.more_before,
        has_more_after=page.more_after,
    )


def _item_out(item: Item) -> MessageOut:
    return question_out(item) if isinstance(item, Message) else reply_out(item)


def question_out(message: Message) -> MessageOut:
    """Return the wire form of what a user said."""
    return MessageOut(
        message_id=message.id,
        session_id=message.session_id,
        role="user",
        content=message.content,
        status=Status.COMPLETE,
        versions=[],
        ai_generated=False,
        time=message.created_at,
    )
