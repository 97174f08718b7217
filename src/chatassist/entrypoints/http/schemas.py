"""What goes over the wire, in camelCase; times are UTC in whole seconds. Unknown request fields are ignored."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from chatassist.domain.audio import Transcript
from chatassist.domain.model import Profile, User
from chatassist.domain.ports.asr import Hints
from chatassist.domain.services.users import SignedIn


def wire_time(at: datetime) -> str:
    """Return a time as the user's document writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[
    datetime,
    PlainSerializer(wire_time, return_type=str),
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
    return UserOut(**_user(user), settings=settings_out(user))


def settings_out(user: User) -> SettingsOut:
    """Return the wire form of a user's settings."""
    chosen = user.preferences
    return SettingsOut(is_dark_mode=chosen.is_dark_mode, auto_read=chosen.auto_read, save_history=chosen.save_history)


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
