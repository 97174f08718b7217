"""The container: every provider can be built, and what is opened is closed."""

import asyncio
from typing import Any

import pytest
from dependency_injector import providers
from sqlalchemy import URL, text

from chatassist.adapters.asr.none import NoTranscriber
from chatassist.adapters.asr.whisper_api import WhisperApiTranscriber
from chatassist.adapters.asr.whisper_local import LocalWhisperTranscriber
from chatassist.adapters.identity.local_login import LocalIdentity
from chatassist.adapters.identity.wechat_login import WeChatIdentity
from chatassist.adapters.llm.failover import FailoverChatModel
from chatassist.adapters.llm.scripted import ScriptedChatModel
from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.ephemeral import EphemeralStore
from chatassist.adapters.persistence.redis import RedisStore
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.adapters.replies.redis import RedisReplyFeed
from chatassist.container import open_services
from chatassist.container.wiring import Container
from chatassist.domain.services import Services
from tests.fixtures.service import settings_for

VENDOR = {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-loopback-key", "model": "m"}
WECHAT = {"appid": "wx1", "secret": "s3cr3t-of-the-app"}


@pytest.mark.parametrize(
    ("given", "identity", "model"),
    [
        ({}, LocalIdentity, ScriptedChatModel),
        ({"llm": VENDOR, "wechat": WECHAT}, WeChatIdentity, FailoverChatModel),
        ({"redis": {"url": "redis://127.0.0.1:9/0"}}, LocalIdentity, ScriptedChatModel),
        ({"llm": {**VENDOR, "title_model": "t"}}, LocalIdentity, FailoverChatModel),
    ],
)
async def test_every_provider_can_be_built(
    sqlite_url: URL, given: dict[str, Any], identity: type[object], model: type[object]
) -> None:
    container = Container(settings=settings_for(sqlite_url, **given))
    built = {name: provider() for name, provider in container.providers.items()}
    assert all(made is not None for made in built.values())
    assert isinstance(built["identity"], identity)
    assert isinstance(built["model"], model)
    singletons = [name for name, one in container.providers.items() if isinstance(one, providers.Singleton)]
    assert all(container.providers[name]() is built[name] for name in singletons)
    assert isinstance(built["services"], Services)
    await built["store"].aclose()
    await built["http"].aclose()


@pytest.mark.parametrize(
    ("asr", "transcriber"),
    [
        ({}, NoTranscriber),
        ({"engine": "whisper_api", "base_url": "http://127.0.0.1:9/v1", "model": "whisper-1"}, WhisperApiTranscriber),
        ({"engine": "whisper_local", "model": "small"}, LocalWhisperTranscriber),
    ],
)
async def test_the_engine_for_speech_is_the_one_that_is_set(
    sqlite_url: URL, asr: dict[str, Any], transcriber: type[object]
) -> None:
    """And opening and closing it calls nobody and loads nothing."""
    settings = settings_for(sqlite_url, asr=asr)
    assert isinstance(Container(settings=settings).transcriber(), transcriber)
    async with open_services(settings) as services:
        await services.check()


async def test_an_engine_that_could_never_work_stops_the_start(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatassist.adapters.asr.whisper_local.find_spec", lambda _: None)
    settings = settings_for(sqlite_url, asr={"engine": "whisper_local", "model": "small"})
    with pytest.raises(
        ValueError, match=r"^CHATASSIST_ASR__ENGINE=whisper_local will not do: .*chatassist\[whisper\]\.$"
    ):
        async with open_services(settings):
            pass


@pytest.mark.parametrize(
    ("llm", "models"), [({}, 0), (VENDOR, 0), ({**VENDOR, "title_model": "t"}, 1), ({"title_model": "t"}, 0)]
)
async def test_titles_have_a_model_where_one_is_set(sqlite_url: URL, llm: dict[str, Any], models: int) -> None:
    """And it is closed with the rest; the scripted vendor has none."""
    settings = settings_for(sqlite_url, llm={**llm, **({} if "base_url" in llm else {"vendor": "scripted"})})
    assert len(Container(settings=settings).title_models()) == models
    async with open_services(settings) as services:
        await services.check()


async def test_redis_is_used_where_it_is_set(sqlite_url: URL) -> None:
    alone = Container(settings=settings_for(sqlite_url))
    assert isinstance(alone.feed(), MemoryReplyFeed)
    assert isinstance(alone.unsaved_store(), EphemeralStore)
    shared = Container(settings=settings_for(sqlite_url, redis={"url": "redis://127.0.0.1:9/0"}))
    assert isinstance(shared.feed(), RedisReplyFeed)
    assert isinstance(shared.unsaved_store(), RedisStore)


async def test_a_redis_that_could_never_be_reached_stops_the_start(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatassist.adapters.redis.find_spec", lambda _: None)
    settings = settings_for(sqlite_url, redis={"url": "redis://:a-private-word@127.0.0.1:9/0"})
    with pytest.raises(ValueError, match=r"^CHATASSIST_REDIS__URL will not do: .*chatassist\[redis\]\.$"):
        async with open_services(settings):
            pass


@pytest.mark.parametrize("on_redis", [False, True], ids=["alone", "redis"])
async def test_what_is_opened_is_closed(any_database: URL, on_redis: bool, request: pytest.FixtureRequest) -> None:
    """Twice in a row in one process, and no task or lease of the first is left behind."""
    redis = {"redis": {"url": request.getfixturevalue("shared_redis").url}} if on_redis else {}
    before = asyncio.all_tasks()
    for _ in range(2):
        async with open_services(settings_for(any_database, **redis)) as services:
            await services.check()
            assert len(await instances(any_database)) == 1
        assert await instances(any_database) == []
    assert asyncio.all_tasks() == before


async def instances(database: URL) -> list[object]:
    engine = open_engine(database, pool_size=1)
    async with engine.connect() as db:
        found = (await db.execute(text("SELECT id FROM instances"))).scalars().all()
    await engine.dispose()
    return list(found)
