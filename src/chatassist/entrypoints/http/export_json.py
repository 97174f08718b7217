"""An export as JSON, part by part: what is written is never looked at again."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import ConfigDict

from chatassist.domain.model import Login, Session
from chatassist.domain.ports.exports import Day, Entry
from chatassist.domain.services.exports import Owner, Part
from chatassist.domain.turns import Message, Reply, Usage
from chatassist.entrypoints.http.chat_schemas import FeedbackOut, UsageOut
from chatassist.entrypoints.http.schemas import Time, UserOut, Wire, user_out, wire_time

_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


# The models only describe: of a hundred thousand messages each would cost several times what it says.


class ExportedDay(Wire):
    """What was used on a day."""

    day: date
    messages: int
    input_tokens: int
    output_tokens: int
    audio_seconds: float


class ExportedLogin(Wire):
    """A sign-in that was not ended."""

    created_at: Time
    expires_at: Time


class ExportedMessage(Wire):
    """A message, or one version of the reply to it; fields that say nothing are absent.

    `shown`: whether its turn shows this version.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    message_id: str
    turn: int
    role: Literal["user", "assistant"]
    version: int | None = None
    shown: bool | None = None
    content: str
    thinking: str | None = None
    status: str | None = None
    finish_reason: str | None = None
    reason: str | None = None
    model: str | None = None
    usage: UsageOut | None = None
    feedback: FeedbackOut | None = None
    client_message_id: str | None = None
    ai_generated: bool
    time: Time


class ExportedSession(Wire):
    """A session, with all its messages in order; `model` is null where none was chosen."""

    session_id: str
    title: str
    pinned: bool
    model: str | None
    created_at: Time
    updated_at: Time
    messages: list[ExportedMessage]


class ExportOut(Wire):
    """Everything that is kept about a user. Broken off where it is no complete JSON."""

    exported_at: Time
    user: UserOut
    usage: list[ExportedDay]
    logins: list[ExportedLogin]
    sessions: list[ExportedSession]


_LISTS: Mapping[type[Part], str] = {Day: "usage", Login: "logins", Session: "sessions", Entry: "sessions"}


class JsonExport:
    """Writes one `ExportOut`."""

    media_type = "application/json"
    suffix = "json"

    def __init__(self) -> None:
        self._lists = iter(dict.fromkeys(_LISTS.values()))
        self._open: str | None = ""  # the list that is open; "" before the first, None after the last
        self._in_session = False
        self._empty = True  # the innermost open list

    def write(self, part: Part) -> str:
        """Return what a part adds."""
        if isinstance(part, Owner):
            known = {"exportedAt": wire_time(part.at), "user": user_out(part.user).model_dump(by_alias=True)}
            return _json(known).removesuffix("}")
        begun = self._until(_LISTS[type(part)])
        match part:
            case Day():
                return begun + self._item(_json(_day(part)))
            case Login():
                return begun + self._item(_json(_login(part)))
            case Session():
                ended = self._end_of_session()
                item = self._item(_json(_session(part)).removesuffix("}") + ',"messages":[')
                self._in_session = self._empty = True
                return begun + ended + item
            case Entry():
                return self._item(_json(_message(part)))

    def end(self) -> str:
        """Return what closes everything."""
        return self._until(None) + "}\n"

    def _until(self, name: str | None) -> str:
        """Close lists and open the next, until the one of this name is open."""
        text = ""
        while self._open != name:
            text += self._end_of_session() + ("]" if self._open else "")
            self._open, self._empty = next(self._lists, None), True
            text += f',"{self._open}":[' if self._open else ""
        return text

    def _end_of_session(self) -> str:
        was_in, self._in_session = self._in_session, False
        self._empty = self._empty and not was_in
        return "]}" if was_in else ""

    def _item(self, text: str) -> str:
        comma = "" if self._empty else ","
        self._empty = False
        return comma + text


def _day(day: Day) -> Mapping[str, Any]:
    used = day.used
    return {
        "day": day.day.isoformat(),
        "messages": used.messages,
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
        "audioSeconds": used.audio_ms / 1000,
    }


def _login(login: Login) -> Mapping[str, Any]:
    return {"createdAt": wire_time(login.created_at), "expiresAt": wire_time(login.expires_at)}


def _session(session: Session) -> Mapping[str, Any]:
    return {
        "sessionId": session.id,
        "title": session.title,
        "pinned": session.pinned,
        "model": session.model,
        "createdAt": wire_time(session.created_at),
        "updatedAt": wire_time(session.updated_at),
    }


def _message(entry: Entry) -> Mapping[str, Any]:
    match entry.said:
        case Message() as said:
            return {
                "messageId": said.id,
                "turn": entry.position,
                "role": "user",
                "content": said.content,
                "aiGenerated": False,
                "time": wire_time(said.created_at),
            }
        case Reply() as reply:
            return _reply(entry, reply)


def _usage(usage: Usage) -> Mapping[str, Any]:
    told = {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens}
    return {**told, "estimated": True} if usage.estimated else told


def _reply(entry: Entry, reply: Reply) -> Mapping[str, Any]:
    usage, feedback = reply.usage, reply.feedback
    told = {
        "messageId": reply.id,
        "turn": entry.position,
        "role": "assistant",
        "version": reply.version,
        "shown": entry.shown,
        "content": reply.content,
        "thinking": reply.thinking or None,
        "status": reply.status.value,
        "finishReason": reply.finish_reason and reply.finish_reason.value,
        "reason": reply.reason,
        "model": reply.model,
        "usage": usage and _usage(usage),
        "feedback": feedback and {"rating": feedback.rating.value, "comment": feedback.comment},
        "clientMessageId": reply.key,
        "aiGenerated": True,
        "time": wire_time(reply.ended_at or reply.created_at),
    }
    return {name: value for name, value in told.items() if value is not None}
