"""Turns: what a user says, the reply to it in its versions and attempts, and the rules of both.

Times are aware UTC datetimes with microseconds; ids are UUIDv7 as 32 hex digits, made outside.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from chatassist.domain.errors import ChatAssistError, ContentEmpty, ContentInvalid, ContentTooLong, KeyInvalid
from chatassist.domain.model import is_clean

NUMBERS_PER_ATTEMPT = 1_000_000
"""Attempt n (from 0) of a reply numbers its events from n times this, plus one."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_key(key: str | None) -> None:
    """Raise KeyInvalid unless a client message id is one, or is not given."""
    if key is not None and not _KEY.fullmatch(key):
        raise KeyInvalid


class Status(StrEnum):
    """Where a reply stands. It leaves `running` once per attempt."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"


class FinishReason(StrEnum):
    """Why a reply ended, in our own words."""

    STOP = "stop"
    LENGTH = "length"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one reply, as the vendor counts them; `estimated` by us where it says nothing."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False


class Rating(StrEnum):
    """What a user thinks of a reply."""

    LIKE = "like"
    DISLIKE = "dislike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A rating, and what the user has to say about it."""

    rating: Rating
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """How far an attempt has come: text and thinking as of the event with number `seq`."""

    reply_id: str
    attempt: int
    seq: int
    content: str
    thinking: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a reply ended. `content` None leaves whatever text and thinking are stored; `reason` is an error's slug.

    `seq`: the number of the event that tells of it; None, from whoever does not produce the reply and so cannot know
    how far it came, means the last number of the attempt.
    """

    status: Status
    finish_reason: FinishReason
    content: str | None
    at: datetime
    thinking: str = ""
    seq: int | None = None
    reason: str | None = None
    model: str | None = None
    usage: Usage | None = None

    @classmethod
    def failure(cls, error: ChatAssistError, at: datetime) -> "End":
        """Return the end of a reply that failed; the text stored so far stays."""
        return cls(status=Status.FAILED, finish_reason=FinishReason.ERROR, content=None, at=at, reason=error.slug)

    @classmethod
    def stop(cls, at: datetime) -> "End":
        """Return the end of a reply that its user stopped; the text stored so far stays."""
        return cls(status=Status.STOPPED, finish_reason=FinishReason.STOPPED, content=None, at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What the user said; `position` (from 1) is the order of acceptance within the session."""

    id: str
    session_id: str
    user_id: str
    position: int
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the assistant answers, in one version (from 1); the process `instance_id` produces its attempt `attempt`.

    `seq`: the number of its last event as far as stored: what text and thinking reach, or its end.
    """

    id: str
    version: int = 1
    attempt: int = 0
    seq: int = 0
    instance_id: str
    key: str | None = None
    requested_model: str | None = None
    status: Status = Status.RUNNING
    finish_reason: FinishReason | None = None
    reason: str | None = None
    content: str = ""
    thinking: str = ""
    model: str | None = None
    usage: Usage | None = None
    feedback: Feedback | None = None
    created_at: datetime
    ended_at: datetime | None = None

    @property
    def first_seq(self) -> int:
        """The number before this attempt's first event."""
        return self.attempt * NUMBERS_PER_ATTEMPT

    @property
    def last_seq(self) -> int:
        """The highest number this attempt can have: that of an end which came from outside."""
        return self.first_seq + NUMBERS_PER_ATTEMPT

    @property
    def end(self) -> End | None:
        """How the reply ended; None while it runs."""
        if self.finish_reason is None or self.ended_at is None:
            return None
        return End(
            status=self.status,
            finish_reason=self.finish_reason,
            content=self.content,
            thinking=self.thinking,
            seq=self.seq,
            at=self.ended_at,
            reason=self.reason,
            model=self.model,
            usage=self.usage,
        )

    def ended(self, end: End) -> "Reply":
        """Return the reply as `end` leaves it."""
        return replace(
            self,
            status=end.status,
            finish_reason=end.finish_reason,
            reason=end.reason,
            content=self.content if end.content is None else end.content,
            thinking=self.thinking if end.content is None else end.thinking,
            seq=self.last_seq if end.seq is None else end.seq,
            model=end.model,
            usage=end.usage,
            ended_at=end.at,
        )

    def restarted(self, instance_id: str) -> "Reply":
        """Return the failed reply as its next attempt begins, with nothing said yet."""
        fresh = Reply(
            id=self.id,
            version=self.version,
            attempt=self.attempt + 1,
            seq=self.last_seq,
            instance_id=instance_id,
            key=self.key,
            requested_model=self.requested_model,
            created_at=self.created_at,
        )
        return replace(fresh, feedback=self.feedback)

    @property
    def good(self) -> bool:
        """Whether it is what a turn shows before any other version: complete or stopped, with text."""
        return self.status in (Status.COMPLETE, Status.STOPPED) and bool(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A user message and one reply to it: what is accepted, shown and deleted as one.

    `saved` tells in which store it lives; `origin_id` is set for the first turn of an unsaved session that continues a
    saved one.
    """

    message: Message
    reply: Reply
    saved: bool = True
    origin_id: str | None = None

    @property
    def speaks(self) -> bool:
        """Whether later prompts may hold it: complete or stopped with text, and not blocked."""
        return self.reply.good and self.reply.finish_reason is not FinishReason.BLOCKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An earlier turn as a prompt needs it."""

    position: int
    question: str
    answer: str

    @classmethod
    def of(cls, turn: Turn) -> "Exchange":
        """Return what was said in a turn."""
        return cls(position=turn.message.position, question=turn.message.content, answer=turn.reply.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a client wants to say, before anything is accepted."""

    text: str
    session_id: str | None = None
    key: str | None = None
    model: str | None = None

    def checked(self, max_chars: int) -> "Draft":
        """Return the draft as it is kept: text trimmed, empty session and model as None.

        Raises ContentInvalid, ContentEmpty, ContentTooLong, KeyInvalid.
        """
        if not all(map(is_clean, (self.text, self.session_id or "", self.model or ""))):
            raise ContentInvalid
        text = self.text.strip()
        if not text:
            raise ContentEmpty
        if len(text) > max_chars:
            raise ContentTooLong
        check_key(self.key)
        return replace(self, text=text, session_id=self.session_id or None, model=self.model or None)

    def repeats(self, turn: Turn) -> bool:
        """Tell whether this (checked) draft is the one that `turn` was accepted for.

        A session that the first send opened may be named or left out, and so may the one that it continues: only a
        session that was opened has the turn at position 1. A regenerated reply is no send's.
        """
        opened = (None, turn.origin_id) if turn.message.position == 1 else ()
        same_session = self.session_id in (turn.message.session_id, *opened)
        said = (turn.message.content, turn.reply.requested_model, 1)
        return same_session and (self.text, self.model, turn.reply.version) == said
