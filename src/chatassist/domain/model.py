"""The values everything turns on, and the rules that need nothing but the values.

Times are aware UTC datetimes with microseconds; ids are UUIDv7 as 32 hex digits, made outside.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from chatassist.domain.errors import AvatarInvalid, ContentInvalid, NicknameInvalid
from chatassist.domain.titles import first_words, preview_of

NICKNAME_CHARS = 32
AVATAR_CHARS = 512
WECHAT_PLACEHOLDER = "微信用户"  # what WeChat answers for every nickname since 2022-11
_ID = re.compile(r"[0-9a-f]{32}")
_HTTPS = re.compile(r"https://[^\s/?#]+\S*")
_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode categories Cc and Cs


_PROFILE = ("nickname", "avatar")
_PREFERENCES = ("is_dark_mode", "auto_read", "save_history")


def is_id(text: str) -> bool:
    """Tell whether `text` could be one of our ids; anything else need not be looked for."""
    return _ID.fullmatch(text) is not None


def is_clean(text: str) -> bool:
    """Tell whether `text` can be stored and shown: no lone surrogate, no control character but tab and newline."""
    return _UNCLEAN.search(text) is None


def _is_avatar(text: str) -> bool:
    try:
        parts = urlsplit(text)
        known = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:  # a port or an IPv6 address that is none
        known = False
    return known and len(text) <= AVATAR_CHARS and _HTTPS.fullmatch(text) is not None


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
class UserChange:
    """What a user changes of himself; None leaves a field as it is, whatever others make of it meanwhile."""

    nickname: str | None = None
    avatar: str | None = None
    is_dark_mode: bool | None = None
    auto_read: bool | None = None
    save_history: bool | None = None

    @property
    def fields(self) -> Mapping[str, str | bool]:
        """The new values, by field."""
        given = {name: getattr(self, name) for name in (*_PROFILE, *_PREFERENCES)}
        return {name: value for name, value in given.items() if value is not None}

    def checked(self) -> "UserChange":
        """Return the change as it is kept, its nickname trimmed.

        Raises ContentInvalid, NicknameInvalid, AvatarInvalid.
        """
        if not is_clean((self.nickname or "") + (self.avatar or "")):
            raise ContentInvalid
        nickname = None if self.nickname is None else self.nickname.strip()
        if nickname is not None and not 1 <= len(nickname) <= NICKNAME_CHARS:
            raise NicknameInvalid
        if self.avatar is not None and not _is_avatar(self.avatar):
            raise AvatarInvalid
        return replace(self, nickname=nickname)


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
    revision: int = 0
    """Raised by every write that shows in what is answered about the user or his list of sessions."""

    def wearing(self, profile: Profile) -> "User":
        """Return the user with what is usable of `profile`; a real name or avatar is never lost to a placeholder."""
        name = profile.nickname.strip()[:NICKNAME_CHARS].strip()
        if not is_clean(name) or (name == WECHAT_PLACEHOLDER and self.nickname):
            name = ""
        avatar = profile.avatar if is_clean(profile.avatar) and _is_avatar(profile.avatar) else ""
        return replace(self, nickname=name or self.nickname, avatar=avatar or self.avatar)

    def changed(self, change: UserChange) -> "User":
        """Return the user after a (checked) change."""
        new = change.fields
        chosen = {name: value for name, value in new.items() if name in _PREFERENCES}
        worn = {name: value for name, value in new.items() if name in _PROFILE}
        preferences = replace(self.preferences, **chosen)  # type: ignore[arg-type]
        return replace(self, preferences=preferences, revision=self.revision + 1, **worn)  # type: ignore[arg-type]

    def differing(self, worn: "User") -> UserChange:
        """Return the change of name and avatar that makes this user look like another state of him."""
        return UserChange(
            nickname=None if worn.nickname == self.nickname else worn.nickname,
            avatar=None if worn.avatar == self.avatar else worn.avatar,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One sign-in of a user on one device; a token lives exactly as long as its login is stored."""

    id: str
    user_id: str
    created_at: datetime
    expires_at: datetime


class TitleSource(StrEnum):
    """Who named a session; the user's word is last."""

    QUESTION = "question"
    MODEL = "model"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A chat session. `turns` counts what was ever accepted in it and so gives the next position.

    `messages`: how many its history shows. `running`: replies being made; `spoken`: whether any ever came out well.
    `model`: what the last send that named one named; it may be on nobody's list any more.
    `revision` is raised by every write that shows in what is answered about the session. One with a `deletion_id` is
    gone for everybody, but can be restored for a while.

    One that is not `saved` lives in the store that forgets; it may continue the saved session `origin_id`, as that was
    after `origin_turns` turns.
    """

    id: str
    user_id: str
    turns: int = 0
    created_at: datetime
    updated_at: datetime
    title: str = ""
    title_source: TitleSource = TitleSource.QUESTION
    preview: str = ""
    pinned: bool = False
    messages: int = 0
    running: int = 0
    spoken: bool = False
    revision: int = 0
    deletion_id: str | None = None
    model: str | None = None
    saved: bool = True
    origin_id: str | None = None
    origin_turns: int = 0

    def continuing(self, origin: "Session") -> "Session":
        """Return this one as an unsaved session that goes on from a saved one, with its model unless it has one."""
        model = self.model or origin.model
        return replace(self, saved=False, origin_id=origin.id, origin_turns=origin.turns, model=model)

    @property
    def listed_at(self) -> datetime | None:
        """By what a list of sessions is in order; None for one that is in no list, since nothing ever came of it."""
        return self.updated_at if self.deletion_id is None and (self.spoken or self.running > 0) else None

    def began(self, at: datetime, *, turns: int, said: str | None, model: str | None = None) -> "Session":
        """Return the session as one more reply begins, with so many new turns; `said` is a new turn's question.

        A `model` that was named is the session's from now on. One without a title, as it is new or lost all its turns,
        is called by the question's first words.
        """
        return replace(
            self.revised(),
            turns=self.turns + turns,
            updated_at=at,
            messages=self.messages + 2 * turns,
            running=self.running + 1,
            title=self.title or first_words(said or ""),
            preview=self.preview if said is None else preview_of(said),
            model=model or self.model,
        )

    def ended(self, *, good: bool, preview: str) -> "Session":
        """Return the session as one of its replies has ended; `preview`, if not empty, is what a list shows now."""
        return replace(
            self.revised(),
            running=self.running - 1,
            spoken=self.spoken or good,
            preview=(good and preview) or self.preview,
        )

    def edited(self, *, title: str | None, pinned: bool | None) -> "Session":
        """Return the session as its user wants it to be called and pinned; None leaves that as it is."""
        return replace(
            self.revised(),
            title=self.title if title is None else title,
            title_source=self.title_source if title is None else TitleSource.USER,
            pinned=self.pinned if pinned is None else pinned,
        )

    def revised(self) -> "Session":
        """Return the session after something about it changed."""
        return replace(self, revision=self.revision + 1)


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
    bare: bool = False
    """Whether it goes without everything that vendors can do without: some refuse a parameter that others want."""

    def shortened(self) -> "Prompt | None":
        """Return the prompt without the older half of what was said before; None where nothing was."""
        first = 1 if self.utterances[0].role is Role.SYSTEM else 0
        turns = (len(self.utterances) - 1 - first) // 2
        if turns < 1:
            return None
        kept = self.utterances[first + 2 * ((turns + 1) // 2) :]
        return replace(self, utterances=(*self.utterances[:first], *kept))
