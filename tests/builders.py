"""Domain values with sensible fields; a test names only what it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import uuid_utils

from chatassist.domain.model import Login, Session, User
from chatassist.domain.turns import End, FinishReason, Message, Reply, Saved, Status, Turn

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def new_id() -> str:
    return uuid_utils.uuid7().hex


def a_user(**given: Any) -> User:
    return User(**{"id": (made := new_id()), "openid": f"openid-{made}", "created_at": NOW, **given})


def a_login(user: User, **given: Any) -> Login:
    expires = NOW + timedelta(days=7)
    return Login(**{"id": new_id(), "user_id": user.id, "created_at": NOW, "expires_at": expires, **given})


def a_session(user: User, **given: Any) -> Session:
    return Session(**{"id": new_id(), "user_id": user.id, "created_at": NOW, "updated_at": NOW, **given})


def an_end(content: str | None = "an answer", **given: Any) -> End:
    return End(
        **{"status": Status.COMPLETE, "finish_reason": FinishReason.STOP, "content": content, "at": NOW, **given}
    )


def a_turn(session: Session, position: int = 1, text: str = "a question", **reply: Any) -> Turn:
    """A running turn; reply fields can be given by name."""
    message = Message(
        id=new_id(),
        session_id=session.id,
        user_id=session.user_id,
        position=position,
        content=text,
        created_at=NOW,
    )
    return Turn(
        message=message, reply=Reply(**{"id": new_id(), "instance_id": "instance-1", "created_at": NOW, **reply})
    )


def a_version(turn: Turn, version: int, **reply: Any) -> Turn:
    """Another running reply to the same message."""
    fresh = Reply(**{"id": new_id(), "version": version, "instance_id": "instance-1", "created_at": NOW, **reply})
    return replace(turn, reply=fresh)


def a_save(turn: Turn, seq: int = 1, content: str = "so far", **given: Any) -> Saved:
    """How far the turn's attempt has come."""
    return Saved(**{"reply_id": turn.reply.id, "attempt": turn.reply.attempt, "seq": seq, "content": content, **given})
