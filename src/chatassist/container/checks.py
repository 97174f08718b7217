"""What `chatassist doctor` looks at: what the settings lead to, tried as the service would use it, with remedies."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from chatassist.adapters.closing import close
from chatassist.adapters.identity.token_secret import load_or_create_secret
from chatassist.adapters.persistence.health import look_at_database
from chatassist.adapters.redis_health import look_at_redis
from chatassist.container.secrets import TOKEN_SECRET_FILE, check_token_secrets
from chatassist.container.vendor_checks import checks_of_vendor, vendor_checks
from chatassist.container.vendors import vendors_of
from chatassist.container.wiring import Container, redis_of, url_of
from chatassist.domain.diagnosis import Check, Verdict, look_at_identity, look_at_model, look_at_transcriber
from chatassist.domain.errors import IdentityMisconfigured, LlmMisconfigured
from chatassist.settings import SQLITE_DEFAULT, AsrEngine, Settings
from chatassist.settings.names import unknown_variables
from chatassist.settings.vendors import key_variables

Looks = AsyncIterator[tuple[Verdict, str]]

_LOCAL_LOGIN = (
    "No mini-program is set: anybody on this machine logs in as dev:NAME, and nobody else does."
    " Set CHATASSIST_WECHAT__APPID and __SECRET."
)
_ASR_OFF = "Speech to text is switched off, as CHATASSIST_ASR__ENGINE says."
_NO_ASR = "No engine is set, so speech to text is refused. Set CHATASSIST_ASR__ENGINE."
_FETCHED = (
    "The model is not tried here: where it is missing, the first recording waits for its download."
    " Give its directory in CHATASSIST_ASR__MODEL to be sure."
)
_NO_REDIS = "None is set: one instance needs none; on several, a reply is only seen to grow where it is produced."
_DATABASE: Mapping[type[Exception], str] = {
    Exception: "Look at CHATASSIST_DATABASE__URL, __USER and __PASSWORD, and at the server itself.",
}
_REDIS: Mapping[type[Exception], str] = {
    Exception: "Look at CHATASSIST_REDIS__URL, and at the server itself.",
}
_WECHAT: Mapping[type[Exception], str] = {
    IdentityMisconfigured: "Look at CHATASSIST_WECHAT__APPID and __SECRET, and at the mini-program's console.",
    Exception: "Let this machine reach the address in CHATASSIST_WECHAT__BASE_URL, or try again later.",
}
_TITLES: Mapping[type[Exception], str] = {
    LlmMisconfigured: "Look at CHATASSIST_LLM__TITLE_MODEL: it is one of the same vendor's.",
    ValueError: "",  # says it all
    Exception: "Until it works, sessions are called by the first words of their questions.",
}
_ASR: Mapping[type[Exception], str] = {
    ValueError: "",  # says it all
    Exception: "Look at CHATASSIST_ASR__VENDOR, __BASE_URL, __API_KEY and __MODEL.",
}


def checks_of(settings: Settings, container: Container, vendor: str | None = None) -> Sequence[Check]:
    """Return all checks, in the order in which they are told; or those of one vendor, by its name or kind.

    Nothing is built, let alone called, before they run. Raises ValueError where no vendor is called so.
    """
    if vendor is not None:
        return checks_of_vendor(settings, vendor, partial(_look_at_asr, settings, container))
    return (
        Check(name="settings", look=partial(_look_at_settings, settings)),
        Check(
            name="token",
            look=partial(_look_at_token, settings),
            remedies={Exception: "Make one by: openssl rand -base64 48"},
        ),
        Check(name="database", look=partial(_look_at_database, settings), remedies=_DATABASE),
        Check(name="redis", look=partial(_look_at_redis, settings), remedies=_REDIS),
        Check(name="wechat", look=partial(_look_at_wechat, settings, container), remedies=_WECHAT),
        *vendor_checks(settings),
        Check(name="titles", look=partial(_look_at_titles, settings, container), remedies=_TITLES),
        Check(name="asr", look=partial(_look_at_asr, settings, container), remedies=_ASR),
    )


async def _look_at_settings(settings: Settings) -> Looks:
    yield Verdict.OK, f"They go together; this is {settings.env.value}."
    for name in unknown_variables(keys=key_variables(settings.llm.vendors_file)):
        yield Verdict.WARN, f"{name} is set, but nothing reads it: misspelt, or of another version?"


async def _look_at_redis(settings: Settings) -> Looks:
    for link in redis_of(settings):
        async with AsyncExitStack() as stack:
            stack.push_async_callback(link.aclose)
            async for found in look_at_redis(link):
                yield found
        return
    yield Verdict.OK, _NO_REDIS


async def _look_at_token(settings: Settings) -> Looks:
    check_token_secrets(settings)
    if settings.token.secret:
        yield Verdict.OK, "The secret is fit to sign tokens."
    elif await asyncio.to_thread(TOKEN_SECRET_FILE.exists):
        await asyncio.to_thread(load_or_create_secret, TOKEN_SECRET_FILE)
        yield Verdict.OK, f"The secret in {TOKEN_SECRET_FILE} is fit to sign tokens, on this machine alone."
    else:
        yield Verdict.OK, f"No secret is set; the first start makes one in {TOKEN_SECRET_FILE}, for this machine alone."


async def _look_at_database(settings: Settings) -> Looks:
    own = settings.database.url == SQLITE_DEFAULT
    async for found in look_at_database(url_of(settings), migrated_at_start=own):
        yield found


async def _look_at_wechat(settings: Settings, container: Container) -> Looks:
    if settings.wechat.appid is None:
        yield Verdict.WARN, _LOCAL_LOGIN
        return
    async with container.http():
        async for found in look_at_identity(container.identity()):
            yield found


async def _look_at_titles(settings: Settings, container: Container) -> Looks:
    try:
        vendors_of(settings)
    except ValueError:
        return  # told already
    for model in container.title_models():
        async with AsyncExitStack() as stack:
            stack.push_async_callback(close, model)
            async for found in look_at_model(model):
                yield found


async def _look_at_asr(settings: Settings, container: Container) -> Looks:
    asr = settings.asr
    if asr.engine is AsrEngine.NONE:
        yield (Verdict.OK, _ASR_OFF) if "engine" in asr.model_fields_set else (Verdict.WARN, _NO_ASR)
        return
    async with AsyncExitStack() as stack:
        stack.push_async_callback(close, container.transcriber())
        if asr.engine is AsrEngine.WHISPER_LOCAL and not await asyncio.to_thread(_is_directory, asr.model or ""):
            yield Verdict.WARN, _FETCHED  # a download takes as long as it takes, and a thread cannot be cut short
            return
        async for found in look_at_transcriber(container.transcriber()):
            yield found


def _is_directory(model: str) -> bool:
    return Path(model).expanduser().is_dir()
