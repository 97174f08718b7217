"""What a setting may be: shapes that several settings share, each refusing nonsense in a sentence without the value."""

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, str_strip_whitespace=True)


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        sound = False
    if not sound or re.search(r"[\s?#]", text):
        raise ValueError("must be an address such as https://api.example.com/v1")
    return text


def _redis_address(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        sound = sound and re.fullmatch(r"(/\d{0,4})?", parts.path) is not None
    except ValueError:  # a port or an IPv6 address that is none
        sound = False
    if not sound or re.search(r"[\s?#]", text):
        raise ValueError("must be an address such as redis://user:password@host:6379/0")
    return secret


def header_secret(secret: SecretStr) -> SecretStr:
    """Return a secret that fits into a header. Raises ValueError."""
    if re.search(r"[^\x21-\x7e]", secret.get_secret_value()):
        raise ValueError("must be visible ASCII characters without blanks")
    return secret


def matching(pattern: str, sentence: str) -> Callable[[str], str]:
    """Return a check that a whole text matches; its own words, since pydantic's would show the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return text

    return check


def _model_name(text: str) -> str:
    if not (0 < len(text) <= MODEL_CHARS and text.isprintable() and " " not in text):
        raise ValueError(f"must be 1 to {MODEL_CHARS} characters that can be seen, without blanks")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be the name of a time zone such as Asia/Shanghai") from None
    return name


MODEL_CHARS = 128
"""Of a model's name: more has no room beside a reply."""

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
ModelName = Annotated[str, AfterValidator(_model_name)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Word = Annotated[str, Field(pattern=r"^\S+$")]
RedisAddress = Annotated[SecretStr, AfterValidator(_redis_address)]
HeaderSecret = Annotated[SecretStr, AfterValidator(header_secret)]
ZoneName = Annotated[str, AfterValidator(_zone)]
Listed = Annotated[tuple[str, ...], NoDecode]
"""Several values in one variable, separated by commas."""
