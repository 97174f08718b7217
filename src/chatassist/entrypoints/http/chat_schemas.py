"""What goes over the wire about turns; the rules of `schemas` hold here too."""

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from chatassist.domain.history import Shown
from chatassist.domain.services.messages import Sent
from chatassist.domain.turns import Draft, Feedback, FinishReason, Rating, Status, Usage
from chatassist.entrypoints.http.schemas import Asked, Time, Wire

COMMENT_CHARS = 500

# --- Requests -------------------------------------------------------------------------------------------------------


class MessageIn(Asked):
    """A message to the assistant."""

    content: str = Field(description="1 to 8,000 characters after trimming")
    session_id: str | None = Field(default=None, description="Empty, null or absent opens a session")
    client_message_id: str | None = Field(
        default=None,
        description="1 to 64 of [A-Za-z0-9_-]; a send repeated with it is the same send. Also `Idempotency-Key`.",
    )
    model: str | None = Field(
        default=None, description="One of `GET /ai/models`; the session's from now on. Without: the session's, if any"
    )

    def draft(self, key: str | None) -> Draft:
        """Return the draft, under the given key."""
        return Draft(text=self.content, session_id=self.session_id, key=key, model=self.model)


class RegenerateIn(Asked):
    """A wish for another reply to the same message."""

    client_message_id: str | None = Field(
        default=None, description="1 to 64 of [A-Za-z0-9_-]; a wish repeated with it is the same wish."
    )
    model: str | None = Field(
        default=None, description="One of `GET /ai/models`, for this version alone. Without: the session's, if any"
    )


class FeedbackIn(Asked):
    """What the user thinks of a reply."""

    rating: Rating | None = Field(description="null takes it back")
    comment: str | None = Field(default=None, json_schema_extra={"maxLength": COMMENT_CHARS})

    @field_validator("comment")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        """Count here: pydantic's own count refuses a lone surrogate, which is another error."""
        if value and len(value) > COMMENT_CHARS:
            raise ValueError
        return value

    def feedback(self) -> Feedback | None:
        """Return it as it is kept; without a rating there is nothing to keep."""
        return Feedback(rating=self.rating, comment=self.comment or None) if self.rating else None


# --- Answers --------------------------------------------------------------------------------------------------------


class UsageOut(Wire):
    """Tokens as the vendor counts them; where it says nothing of them, our estimate, which is marked."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    input_tokens: int
    output_tokens: int
    estimated: bool = Field(default=False, exclude_if=lambda estimated: not estimated)


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


class FeedbackOut(Wire):
    """What the user thinks of a reply."""

    rating: Rating
    comment: str | None


class MessageOut(Wire):
    """One message of a session; fields that say nothing are absent."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    message_id: str
    session_id: str
    role: Literal["user", "assistant"]
    content: str
    thinking: str | None = None
    status: Status
    finish_reason: FinishReason | None = None
    reason: str | None = None
    model: str | None = None
    usage: UsageOut | None = None
    feedback: FeedbackOut | None = None
    versions: list[str]
    ai_generated: bool
    time: Time


class DeletedOut(Wire):
    """How many messages are gone."""

    deleted_messages: int


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
        usage=usage_out(reply.usage),
        replayed=sent.replayed,
    )


def reply_out(shown: Shown) -> MessageOut:
    """Return the wire form of a turn's reply."""
    turn, reply, feedback = shown.turn, shown.turn.reply, shown.turn.reply.feedback
    return MessageOut(
        message_id=reply.id,
        session_id=turn.message.session_id,
        role="assistant",
        content=reply.content,
        thinking=reply.thinking or None,
        status=reply.status,
        finish_reason=reply.finish_reason,
        reason=reply.reason,
        model=reply.model,
        usage=usage_out(reply.usage),
        feedback=FeedbackOut(rating=feedback.rating, comment=feedback.comment) if feedback else None,
        versions=list(shown.versions),
        ai_generated=True,
        time=reply.ended_at or reply.created_at,
    )


def usage_out(usage: Usage | None) -> UsageOut | None:
    """Return the wire form of what a reply took."""
    if usage is None:
        return None
    return UsageOut(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, estimated=usage.estimated)
