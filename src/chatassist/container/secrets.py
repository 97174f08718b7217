"""Secrets that are set, and everything that is made with the one that signs tokens."""

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from chatassist.adapters.identity.jwt_tokens import JwtTokens
from chatassist.adapters.identity.pseudonym import pseudonyms
from chatassist.adapters.identity.token_secret import check_secret, load_or_create_secret
from chatassist.adapters.seal import Seal
from chatassist.domain.ports.identity import Tokens
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.usage import Calendar, Metering
from chatassist.settings import Settings

TOKEN_SECRET_FILE = Path("var/token-secret")


def secret_of(value: SecretStr | None) -> str:
    """Return a secret as it was set; empty where it was not."""
    return value.get_secret_value() if value else ""


def check_token_secrets(settings: Settings) -> None:
    """Raise ValueError, in a sentence that never holds it, for a given secret that is too weak to sign with."""
    token = settings.token
    for name, value in (("SECRET", token.secret), ("PREVIOUS_SECRET", token.previous_secret)):
        if value:
            try:
                check_secret(value.get_secret_value())
            except ValueError as exc:
                raise ValueError(f"CHATASSIST_TOKEN__{name} will not do: {exc}.") from exc


def tokens_of(settings: Settings, runtime: Runtime) -> Tokens:
    """Return what signs tokens and reads them. Raises ValueError as `check_token_secrets` does."""
    check_token_secrets(settings)
    token = settings.token
    return JwtTokens(
        runtime.clock,
        secret=_token_secret(settings),
        previous_secret=secret_of(token.previous_secret) or None,
        lifetime=timedelta(seconds=token.lifetime),
    )


def _token_secret(settings: Settings) -> str:
    return secret_of(settings.token.secret) or load_or_create_secret(TOKEN_SECRET_FILE)


def seal_of(settings: Settings) -> Seal:
    """Return what seals what lies in Redis."""
    secrets = (_token_secret(settings), secret_of(settings.token.previous_secret))
    return Seal([secret for secret in secrets if secret])


def metering_of(settings: Settings) -> Metering:
    """Return what finds a person's meter."""
    return Metering(pseudonyms(_token_secret(settings)), Calendar(ZoneInfo(settings.limits.day_zone)))
