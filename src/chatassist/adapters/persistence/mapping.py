"""How rows become domain values, and domain values rows. Knows columns by name and order, and no statement."""

from collections.abc import Sequence
from typing import Any

from chatassist.adapters.persistence.tables import LOGINS, QUESTION_VERSION, SESSIONS
from chatassist.domain.model import Login, Preferences, Session, TitleSource, User
from chatassist.domain.turns import Feedback, FinishReason, Message, Rating, Reply, Status, Turn, Usage

# A turn is read as its question's first columns and then all of its reply's.
QUESTION_COLUMNS = ("id", "session_id", "user_id", "position", "content", "created_at")
REPLY_COLUMNS = (
    *("id", "version", "attempt", "seq", "instance_id", "client_key", "requested_model", "status", "finish_reason"),
    *("reason", "content", "thinking", "model", "rating", "comment", "created_at", "ended_at"),
    *("input_tokens", "output_tokens", "usage_estimated"),
)


def as_user(columns: Sequence[Any]) -> User:
    """Make a user of the columns of `users`, in their order."""
    user_id, openid, nickname, avatar, is_dark_mode, auto_read, save_history, blocked, created_at, revision = columns
    return User(
        id=user_id,
        openid=openid,
        nickname=nickname,
        avatar=avatar,
        preferences=Preferences(is_dark_mode=is_dark_mode, auto_read=auto_read, save_history=save_history),
        blocked=blocked,
        created_at=created_at,
        revision=revision,
    )


def user_values(user: User) -> dict[str, Any]:
    """Return what is stored of a user, by column."""
    kept = user.preferences
    return {
        "id": user.id,
        "openid": user.openid,
        "nickname": user.nickname,
        "avatar": user.avatar,
        "is_dark_mode": kept.is_dark_mode,
        "auto_read": kept.auto_read,
        "save_history": kept.save_history,
        "blocked": user.blocked,
        "created_at": user.created_at,
        "revision": user.revision,
    }


def as_login(columns: Sequence[Any]) -> Login:
    """Make a login of the columns of `logins`, in their order."""
    login_id, user_id, created_at, expires_at = columns
    return Login(id=login_id, user_id=user_id, created_at=created_at, expires_at=expires_at)


def login_values(login: Login) -> dict[str, Any]:
    """Return what is stored of a login, by column."""
    return {name: getattr(login, name) for name in LOGINS.c.keys()}  # noqa: SIM118 - not a dict


def as_session(columns: Sequence[Any]) -> Session:
    """Make a chat session of the columns of `sessions`, in their order."""
    known = dict(zip(SESSIONS.c.keys(), columns, strict=True))
    del known["listed_at"]  # follows from the others
    known["title_source"] = TitleSource(known["title_source"])
    return Session(**known)


def session_values(session: Session) -> dict[str, Any]:
    """Return what is stored of a chat session, by column."""
    return {name: getattr(session, name) for name in SESSIONS.c.keys()}  # noqa: SIM118 - not a dict


def as_turn(columns: Sequence[Any]) -> Turn:
    """Make a turn of QUESTION_COLUMNS followed by REPLY_COLUMNS."""
    message_id, session_id, user_id, position, content, created_at = columns[: len(QUESTION_COLUMNS)]
    message = Message(
        id=message_id,
        session_id=session_id,
        user_id=user_id,
        position=position,
        content=content,
        created_at=created_at,
    )
    return Turn(message=message, reply=as_reply(columns[len(QUESTION_COLUMNS) :]))


def as_reply(columns: Sequence[Any]) -> Reply:
    """Make a reply of REPLY_COLUMNS."""
    reply_id, version, attempt, seq, instance_id, key, requested, status, finish_reason, *rest = columns
    reason, content, thinking, model, rating, comment, created_at, ended_at, *tokens = rest
    return Reply(
        id=reply_id,
        version=version,
        attempt=attempt,
        seq=seq or 0,
        instance_id=instance_id or "",
        key=key,
        requested_model=requested,
        status=Status(status),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        reason=reason,
        content=content,
        thinking=thinking or "",
        model=model,
        usage=_usage(*tokens),
        feedback=None if rating is None else Feedback(rating=Rating(rating), comment=comment),
        created_at=created_at,
        ended_at=ended_at,
    )


def _usage(read: int | None, written: int | None, estimated: bool | None) -> Usage | None:
    if read is None or written is None:
        return None
    return Usage(input_tokens=read, output_tokens=written, estimated=bool(estimated))


def turn_values(turn: Turn) -> list[dict[str, Any]]:
    """Return what is stored of a turn, by column: the question's row, then the reply's."""
    said, answer = turn.message, reply_values(turn)
    question = dict.fromkeys(answer) | {
        "id": said.id,
        "session_id": said.session_id,
        "user_id": said.user_id,
        "position": said.position,
        "version": QUESTION_VERSION,
        "content": said.content,
        "created_at": said.created_at,
    }
    return [question, answer]


def reply_values(turn: Turn) -> dict[str, Any]:
    """Return what is stored of a turn's reply, by column."""
    said, reply, usage, feedback = turn.message, turn.reply, turn.reply.usage, turn.reply.feedback
    return {
        "id": reply.id,
        "session_id": said.session_id,
        "user_id": said.user_id,
        "position": said.position,
        "version": reply.version,
        "content": reply.content,
        "created_at": reply.created_at,
        "attempt": reply.attempt,
        "seq": reply.seq,
        "instance_id": reply.instance_id,
        "client_key": reply.key,
        "requested_model": reply.requested_model,
        "status": reply.status.value,
        "finish_reason": reply.finish_reason and reply.finish_reason.value,
        "reason": reply.reason,
        "model": reply.model,
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        "usage_estimated": usage and usage.estimated,
        "ended_at": reply.ended_at,
        "thinking": reply.thinking or None,
        "rating": feedback and feedback.rating.value,
        "comment": feedback and feedback.comment,
    }
