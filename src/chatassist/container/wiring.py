"""How settings become adapters, and adapters services. Only this package asks it to."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx2
import uuid_utils
from dependency_injector import containers, providers
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from chatassist.adapters.http import open_client
from chatassist.adapters.identity.local_login import LocalIdentity
from chatassist.adapters.identity.wechat_login import WeChatIdentity
from chatassist.adapters.limits.memory import MemoryLimiter
from chatassist.adapters.moderation.none import AllowAll
from chatassist.adapters.persistence.engine import database_url, open_engine
from chatassist.adapters.persistence.ephemeral import EphemeralStore
from chatassist.adapters.persistence.places import OwnPlaces
from chatassist.adapters.persistence.redis import RedisStore
from chatassist.adapters.persistence.redis_places import RedisPlaces
from chatassist.adapters.persistence.sql import SqlStore
from chatassist.adapters.redis import RedisLink, open_redis
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.adapters.replies.redis import RedisReplyFeed
from chatassist.adapters.sniff import recognise
from chatassist.adapters.wechat import WeChatApi
from chatassist.container.models import model_of, title_models_of
from chatassist.container.secrets import metering_of, seal_of, secret_of, tokens_of
from chatassist.container.speech import listener_of, transcriber_around, transcriber_of
from chatassist.container.vendors import offers_of, vendors_of
from chatassist.domain.ports.identity import IdentityProvider
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.llm import ChatModel, Offer
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.places import Places
from chatassist.domain.ports.replies import ReplyFeed
from chatassist.domain.ports.runtime import Clock, Runtime
from chatassist.domain.prompt import PromptRules
from chatassist.domain.replies.claiming import Claims
from chatassist.domain.replies.ends import Ends
from chatassist.domain.replies.engine import ReplyEngine, ReplyRules
from chatassist.domain.replies.follow import Follower
from chatassist.domain.replies.gate import Gate, MessageRules
from chatassist.domain.replies.lease import Lease
from chatassist.domain.replies.stop import Stopper
from chatassist.domain.replies.stores import Stores
from chatassist.domain.replies.titles import Titler
from chatassist.domain.services import Services
from chatassist.domain.services.accounts import AccountService
from chatassist.domain.services.deletions import DeletionService
from chatassist.domain.services.exports import ExportService
from chatassist.domain.services.history import HistoryService
from chatassist.domain.services.messages import MessageService
from chatassist.domain.services.models import ModelService
from chatassist.domain.services.replies import ReplyService
from chatassist.domain.services.search import SearchRules, SearchService
from chatassist.domain.services.sessions import SessionService
from chatassist.domain.services.speech import SpeechRules, SpeechService
from chatassist.domain.services.usage import UsageService
from chatassist.domain.services.users import UserService
from chatassist.domain.upkeep import Upkeep
from chatassist.settings import Settings

WECHAT_READ_SECONDS = 5.0


def url_of(settings: Settings) -> URL:
    """Return where the database is. Raises ValueError for an address that is none."""
    database = settings.database
    return database_url(database.url, database.user, secret_of(database.password) or None)


def _database(settings: Settings) -> AsyncEngine:
    return open_engine(url_of(settings), pool_size=settings.database.pool_size)


def _identity(settings: Settings, http: httpx2.AsyncClient) -> IdentityProvider:
    wechat = settings.wechat
    if wechat.appid is None:
        return LocalIdentity()
    return WeChatIdentity(
        WeChatApi(http, base_url=wechat.base_url, appid=wechat.appid, secret=secret_of(wechat.secret))
    )


def _titler(stores: Stores, feed: ReplyFeed, models: Sequence[ChatModel]) -> Titler:
    return Titler(stores, feed, models[0] if models else None)


def redis_of(settings: Settings) -> Sequence[RedisLink]:
    """Return the way to Redis, or nothing where none is set. Raises ValueError where it could never work."""
    url = secret_of(settings.redis.url)
    try:
        return [open_redis(url)] if url else []
    except ValueError as exc:
        raise ValueError(f"CHATASSIST_REDIS__URL will not do: {exc}.") from exc


def _feed(settings: Settings, redis: Sequence[RedisLink]) -> ReplyFeed:
    memory = MemoryReplyFeed()
    return RedisReplyFeed(memory, redis[0], seal_of(settings)) if redis else memory


def _unsaved_store(settings: Settings, redis: Sequence[RedisLink], clock: Clock) -> Store:
    return RedisStore(redis[0], seal_of(settings)) if redis else EphemeralStore(clock)


def _places(redis: Sequence[RedisLink]) -> Places:
    return RedisPlaces(redis[0]) if redis else OwnPlaces()


def _limiter(settings: Settings) -> Limiter:
    limits = settings.limits
    return MemoryLimiter(
        {
            Rule.LOGINS: limits.logins_per_minute,
            Rule.SENDS: limits.sends_per_minute,
            Rule.READS: limits.reads_per_minute,
            Rule.SPEECH: limits.speech_per_minute,
        }
    )


def _names(offers: Sequence[Offer]) -> frozenset[str]:
    return frozenset(offer.model for offer in offers)


def _message_rules(settings: Settings, models: frozenset[str]) -> MessageRules:
    return MessageRules(content_chars=settings.limits.content_chars, models=models)


def _prompt_rules(settings: Settings, models: frozenset[str]) -> PromptRules:
    llm = settings.llm
    return PromptRules(system=llm.system_prompt, history_tokens=llm.context_tokens, models=models)


def _speech_rules(settings: Settings) -> SpeechRules:
    return SpeechRules(max_bytes=settings.limits.audio_bytes, deadline=settings.asr.deadline)


class Container(containers.DeclarativeContainer):
    """Everything that is one of a kind in a process. Nothing in here connects to anything by being built."""

    settings = providers.Dependency(instance_of=Settings)
    runtime = providers.Singleton(Runtime, lambda: datetime.now(UTC), lambda: uuid_utils.uuid7().hex)

    database = providers.Singleton(_database, settings)
    store = providers.Singleton(SqlStore, database)
    redis = providers.Singleton(redis_of, settings)
    unsaved_store = providers.Singleton(_unsaved_store, settings, redis, runtime.provided.clock)
    stores = providers.Singleton(Stores, store, unsaved_store, providers.Singleton(_places, redis))
    http = providers.Singleton(open_client, read_timeout=WECHAT_READ_SECONDS)
    identity = providers.Singleton(_identity, settings, http)
    tokens = providers.Singleton(tokens_of, settings, runtime)
    vendors = providers.Singleton(vendors_of, settings)
    offers = providers.Singleton(offers_of, settings, vendors)
    turn = providers.Singleton(asyncio.Lock)
    model = providers.Singleton(model_of, settings, vendors, turn)
    offered = providers.Singleton(_names, offers)
    feed = providers.Singleton(_feed, settings, redis)
    limiter = providers.Singleton(_limiter, settings)
    moderator = providers.Singleton(AllowAll)

    lease = providers.Singleton(Lease, store, runtime)
    reply_rules = providers.Singleton(lambda settings: ReplyRules(deadline=settings.llm.deadline), settings)
    ends = providers.Singleton(Ends, stores, feed, lease)
    title_models = providers.Singleton(title_models_of, settings, vendors, turn)
    titler = providers.Singleton(_titler, stores, feed, title_models)
    engine = providers.Singleton(
        ReplyEngine, stores, feed, model, lease=lease, ends=ends, titler=titler, rules=reply_rules
    )
    follower = providers.Singleton(Follower, stores, feed, lease, ends)
    stopper = providers.Singleton(Stopper, stores, engine, follower, feed=feed, ends=ends)
    gate = providers.Singleton(Gate, limiter, moderator, model, providers.Callable(_message_rules, settings, offered))
    metering = providers.Singleton(metering_of, settings)
    prompt_rules = providers.Callable(_prompt_rules, settings, offered)
    claims = providers.Singleton(Claims, stores, runtime, rules=prompt_rules, metering=metering)
    users = providers.Singleton(UserService, store, identity, tokens, limiter=limiter, runtime=runtime)
    search = providers.Singleton(SearchService, store, limiter, SearchRules())
    sessions = providers.Singleton(SessionService, store, gate)
    history = providers.Singleton(HistoryService, store, follower)
    messages = providers.Singleton(MessageService, stores, engine, follower, gate=gate, claims=claims)
    replies = providers.Singleton(ReplyService, stores, engine, follower, gate=gate, stopper=stopper)
    models = providers.Singleton(ModelService, offers, limiter=limiter)
    deletions = providers.Singleton(DeletionService, stores, stopper, gate=gate, runtime=runtime)
    accounts = providers.Singleton(
        AccountService, stores, identity, stopper=stopper, gate=gate, clock=runtime.provided.clock
    )
    usage = providers.Singleton(UsageService, store, metering, limiter=limiter, clock=runtime.provided.clock)
    exports = providers.Singleton(ExportService, store, metering, limiter=limiter, clock=runtime.provided.clock)
    transcriber = providers.Singleton(transcriber_of, settings)
    listener = providers.Singleton(listener_of, settings)
    speech = providers.Singleton(
        SpeechService,
        providers.Singleton(transcriber_around, transcriber, settings),
        listener,
        providers.Object(recognise),
        limiter=limiter,
        count=usage.provided.count,
        rules=providers.Callable(_speech_rules, settings),
    )
    upkeep = providers.Singleton(Upkeep, stores, engine, lease)
    services = providers.Singleton(
        Services,
        store,
        engine,
        users=users,
        sessions=sessions,
        search=search,
        history=history,
        messages=messages,
        replies=replies,
        models=models,
        speech=speech,
        deletions=deletions,
        accounts=accounts,
        usage=usage,
        exports=exports,
    )
