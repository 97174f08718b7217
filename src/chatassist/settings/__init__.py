"""Everything an operator can set: `CHATASSIST_` variables, from the environment or `.env`, nested with `__`.

Rules that need several settings at once stand at the end; each says in one sentence what to do, and never a value.
"""

import ipaddress
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chatassist.settings.kinds import (
    Count,
    HeaderSecret,
    Listed,
    RedisAddress,
    Seconds,
    Section,
    WebAddress,
    Word,
    ZoneName,
)
from chatassist.settings.llm import LlmSettings

PREFIX = "CHATASSIST_"
SQLITE_DEFAULT = "sqlite+aiosqlite:///./var/chatassist.sqlite3"


class Env(StrEnum):
    """Where the service runs."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class HttpSettings(Section):
    """The HTTP door."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is all of them")
    port: int = Field(default=8000, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    reply_wait: float = Field(
        default=50, ge=0, le=3_600, description="seconds a blocking send waits; WeChat cuts at 60"
    )
    drain_seconds: float = Field(default=30, ge=0, le=3_600, description="seconds running replies get at SIGTERM")
    docs: bool | None = Field(default=None, description="serve /docs and /openapi.json; by default not in production")
    trusted_proxies: Listed = Field(default=(), description="addresses or networks whose X-Forwarded-For counts")
    cors_origins: Listed = Field(default=(), description="origins that browsers may call from")

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: Sequence[str]) -> Sequence[str]:
        try:
            return tuple(str(ipaddress.ip_network(part, strict=False)) for part in value)
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: Sequence[str]) -> Sequence[str]:
        if not all(part == "*" or re.fullmatch(r"https?://[^/\s]+", part) for part in value):
            raise ValueError("must be * or origins such as https://app.example.com, separated by commas")
        return value

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class DatabaseSettings(Section):
    """Where everything is kept."""

    url: str = Field(default=SQLITE_DEFAULT, description="SQLite, MySQL or MariaDB; also jdbc:mysql://localhost:3306")
    user: str | None = Field(default=None, description="account on the server; replaces the one in the URL")
    password: SecretStr | None = Field(default=None, description="its password; replaces the one in the URL")
    pool_size: int = Field(default=10, ge=1, le=1_000, description="connections of one process at most")


class RedisSettings(Section):
    """What several instances share besides the database."""

    url: RedisAddress | None = Field(
        default=None,
        description="one server, redis:// or rediss://, that several instances share live streams and unsaved chats by",
    )


class TokenSettings(Section):
    """Bearer tokens."""

    secret: SecretStr | None = Field(default=None, description="at least 32 random bytes; required in production")
    previous_secret: SecretStr | None = Field(default=None, description="still accepted while secrets are rotated")
    lifetime: int = Field(default=604_800, ge=60, le=31_536_000, description="seconds a login lasts")


class WeChatSettings(Section):
    """The mini-program."""

    appid: Word | None = Field(default=None, description="AppID; required in production")
    secret: HeaderSecret | None = Field(default=None, description="AppSecret; required with the AppID")
    base_url: WebAddress = Field(default="https://api.weixin.qq.com", description="where WeChat answers")
    local_login: bool | None = Field(default=None, description="accept dev:NAME as a code; by default on a laptop only")


class AsrEngine(StrEnum):
    """Who transcribes recordings."""

    NONE = "none"
    WHISPER_API = "whisper_api"
    WHISPER_LOCAL = "whisper_local"


class AsrSettings(Section):
    """Speech to text."""

    engine: AsrEngine = Field(default=AsrEngine.NONE, description="who transcribes recordings")
    vendor: Word | None = Field(
        default=None, description="for whisper_api: a vendor by its name; its address and model need not be given then"
    )
    base_url: WebAddress | None = Field(default=None, description="where whisper_api calls; often ends in /v1")
    api_key: HeaderSecret | None = Field(
        default=None, description="the vendor's key, never the AI vendor's above; servers of your own need none"
    )
    model: str | None = Field(
        default=None, description="its name; for whisper_local a directory, or a name such as small"
    )
    deadline: Seconds = Field(default=45, description="seconds a transcription may take, queueing included")


class LimitSettings(Section):
    """What one user or address may ask for; 0 a minute is no limit."""

    content_chars: int = Field(default=8000, ge=1, le=64_000, description="characters of a message")
    body_bytes: int = Field(default=262_144, ge=1_024, le=16_777_216, description="bytes of a JSON body")
    audio_bytes: int = Field(default=25_165_824, ge=1_024, le=104_857_600, description="bytes of a recording")
    audio_seconds: int = Field(default=60, ge=1, le=3_600, description="seconds of sound in a recording")
    sends_per_minute: Count = Field(default=20, description="messages of one user")
    logins_per_minute: Count = Field(default=120, description="logins from one address; loopback peers are not counted")
    speech_per_minute: Count = Field(default=20, description="recordings of one user")
    reads_per_minute: Count = Field(default=300, description="other requests of one user")
    day_zone: ZoneName = Field(
        default="Asia/Shanghai", description="where a day begins and ends that use is counted by"
    )


class Settings(BaseSettings):
    """The whole tree. Raises ValidationError, whose text names settings and never values."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    env: Env = Field(default=Env.DEVELOPMENT, description="production demands what a laptop does without")
    http: HttpSettings = HttpSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    token: TokenSettings = TokenSettings()
    wechat: WeChatSettings = WeChatSettings()
    llm: LlmSettings = LlmSettings()
    asr: AsrSettings = AsrSettings()
    limits: LimitSettings = LimitSettings()

    @property
    def is_production(self) -> bool:
        """Whether the strict rules hold."""
        return self.env is Env.PRODUCTION

    @property
    def local_login(self) -> bool:
        """Whether `dev:<name>` logs in."""
        return self.wechat.local_login is not False and self.wechat.appid is None

    @property
    def door(self) -> HttpSettings:
        """The HTTP door's settings, with what depends on the environment decided."""
        docs = not self.is_production if self.http.docs is None else self.http.docs
        return self.http.model_copy(update={"docs": docs})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for broken, sentence in self._rules():
            if broken:
                raise ValueError(sentence)
        return self

    def _rules(self) -> Sequence[tuple[bool, str]]:
        llm = self.llm.rules(is_production=self.is_production)
        return (*self._identity_rules(), *llm, *self._asr_rules(), *self._production_rules())

    def _identity_rules(self) -> Sequence[tuple[bool, str]]:
        wechat, local = self.wechat, self.wechat.local_login
        return (
            (local is True and self.is_production, "CHATASSIST_WECHAT__LOCAL_LOGIN must not be true in production."),
            (wechat.appid is not None and not _given(wechat.secret), "CHATASSIST_WECHAT__SECRET is missing."),
            (
                local is True and wechat.appid is not None,
                "CHATASSIST_WECHAT__LOCAL_LOGIN and CHATASSIST_WECHAT__APPID exclude each other: unset one.",
            ),
            (
                wechat.appid is None and (self.is_production or local is False),
                "CHATASSIST_WECHAT__APPID and CHATASSIST_WECHAT__SECRET are missing: nobody could log in.",
            ),
            (
                wechat.appid is None and not self.http.is_loopback,
                "CHATASSIST_HTTP__HOST is no loopback address, so local login is off: set CHATASSIST_WECHAT__APPID.",
            ),
        )

    def _asr_rules(self) -> Sequence[tuple[bool, str]]:
        asr = self.asr
        return (
            (
                "engine" not in asr.model_fields_set and bool(asr.vendor or asr.base_url or asr.api_key or asr.model),
                "CHATASSIST_ASR__ENGINE is missing: say whisper_api or whisper_local; none leaves the others unused.",
            ),
            (
                asr.engine is AsrEngine.WHISPER_API and not (asr.vendor or (asr.base_url and asr.model)),
                "The engine whisper_api needs CHATASSIST_ASR__VENDOR, or both CHATASSIST_ASR__BASE_URL and"
                " CHATASSIST_ASR__MODEL.",
            ),
            (
                asr.engine is AsrEngine.WHISPER_LOCAL and not asr.model,
                "CHATASSIST_ASR__MODEL is missing: the engine whisper_local needs a model's directory or name.",
            ),
        )

    def _production_rules(self) -> Sequence[tuple[bool, str]]:
        return (
            (
                self.is_production and not _given(self.token.secret),
                "CHATASSIST_TOKEN__SECRET is missing: give at least 32 random bytes.",
            ),
        )


def _given(secret: SecretStr | None) -> bool:
    return secret is not None and bool(secret.get_secret_value())
