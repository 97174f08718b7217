"""What goes over the wire, in camelCase; times are UTC in whole seconds. Unknown request fields are ignored."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from chatassist.domain.audio import Transcript
from chatassist.domain.model import Profile, User
from chatassist.domain.ports.asr import Hints
from chatassist.domain.services.messages import Sent
from chatassist.domain.services.users import SignedIn
from chatassist.domain.turns import Draft, FinishReason, Status, Turn

Time = Annotated[
    datetime,
    PlainSerializer(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2023-04-01T12:00:00Z"]}),
]


class Wire(BaseModel):
    """Whatever is answered."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, json_schema_serialization_defaults_required=True
    )


class Asked(BaseModel):
    """Whatever is asked: by the names on the wire alone."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


# --- Requests -------------------------------------------------------------------------------------------------------

_USER_INFO = {
    "type": "object",
    "properties": {"nickName": {"type": "string"}, "avatarUrl": {"type": "string"}},
    "description": "Decoration. Bad values are ignored, never an error.",
}


class LoginIn(Asked):
    """A login."""

    code: str = Field(description="The one-time code of `wx.login`; on a laptop `dev:<name>`")
    user_info: Annotated[Any, WithJsonSchema(_USER_INFO)] = None

    def profile(self) -> Profile:
        """Return what is a text among the claimed name and avatar."""
        claimed = self.user_info if isinstance(self.user_info, dict) else {}
        name, avatar = claimed.get("nickName"), claimed.get("avatarUrl")
        return Profile(
            nickname=name if isinstance(name, str) else "",
            avatar=avatar if isinstance(avatar, str) else "",
        )


class MessageIn(Asked):
    """A message to the assistant."""

    content: str = Field(description="1 to 8,000 characters after trimming")
    session_id: str | None = Field(default=None, description="Empty, null or absent opens a session")
    client_message_id: str | None = Field(
        default=None,
        description="1 to 64 of [A-Za-z0-9_-]; a send repeated with it is the same send. Also `Idempotency-Key`.",
    )
    model: str | None = Field(default=None, description="One of the operator's models")

    def draft(self, key: str | None) -> Draft:
        """Return the draft, under the given key."""
        return Draft(text=self.content, session_id=self.session_id, key=key, model=self.model)


class HintsIn(Wire):
    """What may help with a recording; empty is as good as absent."""

    language: str = Field(
        default="", pattern=r"^([A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*)?$", description="What is spoken, such as zh or en"
    )
    prompt: str = Field(default="", max_length=1000, description="Names and words that may occur")

    def hints(self) -> Hints:
        """Return what engines are given: of a language such as zh-CN they know the first part."""
        language = self.language.replace("_", "-").partition("-")[0].lower()
        return Hints(language=language or None, prompt=self.prompt.strip() or None)


# --- Answers --------------------------------------------------------------------------------------------------------


class UserBrief(Wire):
    """What a login shows of a user."""

    id: str
    openid: str
    nick_name: str
    avatar: str
    created_at: Time


class SettingsOut(Wire):
    """The user's settings."""

    is_dark_mode: bool
    auto_read: bool
    save_history: bool


class UserOut(UserBrief):
    """A user, with settings."""

    settings: SettingsOut


class LoginOut(Wire):
    """A token, how many seconds it lives, and whose it is."""

    token: str
    expires_in: int
    user_info: UserBrief


class UsageOut(Wire):
    """Tokens as the vendor counts them."""

    input_tokens: int
    output_tokens: int


class ReplyOut(Wire):
    """What the assistant said, so far or in whole."""

    content: str
    time: Time


class SentOut(Wire):
    """A turn as a blocking send shows it. `messageId` is the id of the reply."""

    session_id: str
    message_id: str
    user_message_id: str
    reply: ReplyOut
    status: Status
    finish_reason: FinishReason | None
    model: str | None
    usage: UsageOut | None
    ai_generated: Literal[True] = True
    replayed: bool


class MessageOut(Wire):
    """One message of a session; fields that say nothing are absent."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    message_id: str
    session_id: str
    role: Literal["user", "assistant"]
    content: str
    status: Status
    finish_reason: FinishReason | None = None
    reason: str | None = None
    model: str | None = None
    usage: UsageOut | None = None
    versions: list[str]
    ai_generated: bool
    time: Time


class TranscriptOut(Wire):
    """What was said; `language` and `duration` (seconds) are null where the engine does not tell."""

    text: str
    language: str | None
    duration: float | None


def login_out(signed: SignedIn) -> LoginOut:
    """Return the wire form of a login."""
    return LoginOut(token=signed.token, expires_in=signed.expires_in, user_info=UserBrief(**_user(signed.user)))


def user_out(user: User) -> UserOut:
    """Return the wire form of a user."""
    chosen = user.preferences
    settings = SettingsOut(
        is_dark_mode=chosen.is_dark_mode, auto_read=chosen.auto_read, save_history=chosen.save_history
    )
    return UserOut(**_user(user), settings=settings)


def sent_out(sent: Sent) -> SentOut:
    """Return the wire form of a send."""
    message, reply = sent.turn.message, sent.turn.reply
    return SentOut(
        session_id=message.session_id,
        message_id=reply.id,
        user_message_id=message.id,
        reply=ReplyOut(content=reply.content, time=reply.ended_at or reply.created_at),
        status=reply.status,
        finish_reason=reply.finish_reason,
        model=reply.model,
        usage=_usage(sent.turn),
        replayed=sent.replayed,
    )


def reply_out(turn: Turn) -> MessageOut:
    """Return the wire form of a turn's reply."""
    reply = turn.reply
    return MessageOut(
        message_id=reply.id,
        session_id=turn.message.session_id,
        role="assistant",
        content=reply.content,
        status=reply.status,
        finish_reason=reply.finish_reason,
        reason=reply.reason,
        model=reply.model,
        usage=_usage(turn),
        versions=[reply.id],
        ai_generated=True,
        time=reply.ended_at or reply.created_at,
    )


def transcript_out(transcript: Transcript) -> TranscriptOut:
    """Return the wire form of a transcript."""
    return TranscriptOut(text=transcript.text, language=transcript.language, duration=transcript.duration)


def _user(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "openid": user.openid,
        "nick_name": user.nickname,
        "avatar": user.avatar,
        "created_at": user.created_at,
    }


def _usage(turn: Turn) -> UsageOut | None:
    usage = turn.reply.usage
    return UsageOut(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens) if usage else None
