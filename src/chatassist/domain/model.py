"""The values everything turns on, and the rules that need nothing but the values.

Times are aware UTC datetimes with microseconds; ids are UUIDv7 as 32 hex digits, made outside.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

NICKNAME_CHARS = 32
AVATAR_CHARS = 512
WECHAT_PLACEHOLDER = "微信用户"  # what WeChat answers for every nickname since 2022-11
_ID = re.compile(r"[0-9a-f]{32}")
_HTTPS = re.compile(r"https://[^\s/?#]+\S*")
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
    """A chat session. `turns` counts what was ever accepted in it and so gives the next position.

    One that is not `saved` lives in the store that forgets; it may continue the saved session `origin_id`, as that was
    after `origin_turns` turns.
    """

    id: str
    user_id: str
    turns: int = 0
    created_at: datetime
    updated_at: datetime
    saved: bool = True
    origin_id: str | None = None
    origin_turns: int = 0

    def continuing(self, origin: "Session") -> "Session":
        """Return this one as an unsaved session that goes on from a saved one."""
        return replace(self, saved=False, origin_id=origin.id, origin_turns=origin.turns)


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
