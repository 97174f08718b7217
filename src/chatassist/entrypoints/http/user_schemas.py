"""What goes over the wire about users themselves; the rules of `schemas` hold here too."""

from datetime import date
from typing import Any

from pydantic import Field, StrictBool, field_validator
from pydantic.json_schema import SkipJsonSchema

from chatassist.domain.model import AVATAR_CHARS, NICKNAME_CHARS, UserChange
from chatassist.domain.services.usage import Today
from chatassist.entrypoints.http.schemas import Asked, Time, Wire


class ProfileIn(Asked):
    """A new name, a new avatar, or both; what is null or absent stays."""

    nick_name: str | None = Field(default=None, description=f"1 to {NICKNAME_CHARS} characters after trimming")
    avatar_url: str | None = Field(default=None, description=f"https, {AVATAR_CHARS} characters at most")

    def change(self) -> UserChange:
        """Return the change, not yet checked."""
        return UserChange(nickname=self.nick_name, avatar=self.avatar_url)


def _undefaulted(schema: dict[str, Any]) -> None:
    del schema["default"]


_UNCHANGED: Any = Field(default=None, json_schema_extra=_undefaulted)


class SettingsIn(Asked):
    """Any of the settings; what is absent stays."""

    is_dark_mode: StrictBool | SkipJsonSchema[None] = _UNCHANGED
    auto_read: StrictBool | SkipJsonSchema[None] = _UNCHANGED
    save_history: StrictBool | SkipJsonSchema[None] = _UNCHANGED

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        """Refuse null: it is no setting, and absent says the same without a doubt."""
        if value is None:
            raise ValueError
        return value

    def change(self) -> UserChange:
        """Return the change."""
        return UserChange(is_dark_mode=self.is_dark_mode, auto_read=self.auto_read, save_history=self.save_history)


class UsageTodayOut(Wire):
    """What was used today, a day of the operator's zone; a limit that there is not is null."""

    day: date
    messages_used: int
    messages_limit: int | None
    input_tokens: int
    output_tokens: int
    tokens_limit: int | None
    audio_seconds: float
    audio_seconds_limit: int | None
    reset_at: Time


def usage_today_out(today: Today) -> UsageTodayOut:
    """Return the wire form of what was used today."""
    used = today.used
    return UsageTodayOut(
        day=today.day,
        messages_used=used.messages,
        messages_limit=None,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        tokens_limit=None,
        audio_seconds=used.audio_ms / 1000,
        audio_seconds_limit=None,
        reset_at=today.resets_at,
    )
