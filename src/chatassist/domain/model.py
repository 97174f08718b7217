"""The values everything turns on, and the rules that need nothing but the values.

Times are aware UTC datetimes with microseconds; ids are UUIDv7 as 32 hex digits, made outside.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from chatassist.domain.errors import ChatAssistError, ContentEmpty, ContentInvalid, ContentTooLong, KeyInvalid

NICKNAME_CHARS = 32
AVATAR_CHARS = 512
WECHAT_PLACEHOLDER = "微信用户"  # what WeChat answers for every nickname since 2022-11
_ID = re.compile(r"[0-9a-f]{32}")
_HTTPS = re.compile(r"https://[^\s/?#]+\S*")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode categories Cc and Cs


def is_id(text: str) -> bool:
    """Tell whether `text` could be one of our ids; anything else need not be looked for."""
    return _ID.fullmatch(text) is not None


def is_clean(text: str) -> bool:
    """Tell whether `text` can be stored and shown: no lone surrogate, no control character but tab and newline."""
    return _UNCLEAN.search(text) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """The three settings of the user's document, with its defaults."""

    is_dark_mode: bool = False
    auto_read: bool = False
    save_history: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Name and avatar as a client claims them at login: decoration, never identity."""

    nickname: str = ""
    avatar: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person, known by the openid that WeChat vouches for (case matters)."""

    id: str
    openid: str
    nickname: str = ""
    avatar: str = ""
    preferences: Preferences = field(default_factory=Preferences)
    blocked: bool = False
    created_at: datetime

    def wearing(self, profile: Profile) -> "User":
        """Return the user with what is usable of `profile`; a real name or avatar is never lost to a placeholder."""
        name = profile.nickname.strip()[:NICKNAME_CHARS].strip()
        if not is_clean(name) or (name == WECHAT_PLACEHOLDER and self.nickname):
            name = ""
        avatar = profile.avatar
        if not _HTTPS.fullmatch(avatar) or len(avatar) > AVATAR_CHARS or not is_clean(avatar):
            avatar = ""
        return replace(self, nickname=name or self.nickname, avatar=avatar or self.avatar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One sign-in of a user on one device; a token lives exactly as long as its login is stored."""

    id: str
    user_id: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A chat session. `turns` counts what was ever accepted in it and so gives the next position."""

    id: str
    user_id: str
    turns: int = 0
    created_at: datetime
    updated_at: datetime


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
    """Tokens of one vendor call, as the vendor counts them."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a reply ended. `content` None leaves whatever text is stored; `reason` is an error's slug."""

    status: Status
    finish_reason: FinishReason
    content: str | None
    at: datetime
    reason: str | None = None
    model: str | None = None
    usage: Usage | None = None

    @classmethod
    def failure(cls, error: ChatAssistError, at: datetime) -> "End":
        """Return the end of a reply that failed; the text stored so far stays."""
        return cls(status=Status.FAILED, finish_reason=FinishReason.ERROR, content=None, at=at, reason=error.slug)


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
    """What the assistant answers. `instance_id` names the process that produces attempt `attempt` of it."""

    id: str
    attempt: int = 0
    instance_id: str
    key: str | None = None
    requested_model: str | None = None
    status: Status = Status.RUNNING
    finish_reason: FinishReason | None = None
    reason: str | None = None
    content: str = ""
    model: str | None = None
    usage: Usage | None = None
    created_at: datetime
    ended_at: datetime | None = None

    @property
    def end(self) -> End | None:
        """How the reply ended; None while it runs."""
        if self.finish_reason is None or self.ended_at is None:
            return None
        return End(
            status=self.status,
            finish_reason=self.finish_reason,
            content=self.content,
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
            model=end.model,
            usage=end.usage,
            ended_at=end.at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A user message and the reply to it: what is accepted, shown and deleted as one."""

    message: Message
    reply: Reply

    @property
    def speaks(self) -> bool:
        """Whether later prompts may hold it: complete or stopped with text, and not blocked."""
        done = self.reply.status in (Status.COMPLETE, Status.STOPPED)
        return done and bool(self.reply.content) and self.reply.finish_reason is not FinishReason.BLOCKED


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
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise KeyInvalid
        return replace(self, text=text, session_id=self.session_id or None, model=self.model or None)

    def repeats(self, turn: Turn) -> bool:
        """Tell whether this (checked) draft is the one that `turn` was accepted for.

        A session that the first send opened may be named or left out: only such a session has the turn at position 1.
        """
        same_session = self.session_id == turn.message.session_id or (
            self.session_id is None and turn.message.position == 1
        )
        return same_session and (self.text, self.model) == (turn.message.content, turn.reply.requested_model)


class Role(StrEnum):
    """Who speaks in a prompt."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One message of a prompt."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given: at most one system message first, then user and assistant in turns, the user last."""

    utterances: Sequence[Utterance]
    model: str | None = None
    """A model the user chose; None is the operator's default."""
