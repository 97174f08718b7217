"""The models that make replies and titles: one adapter per vendor, each in its wrappers, all behind one failover."""

import asyncio
from collections.abc import Sequence

from chatassist.adapters.llm.attempts import FailoverRules, Route
from chatassist.adapters.llm.breaker import BreakingChatModel
from chatassist.adapters.llm.capped import CappedChatModel
from chatassist.adapters.llm.failover import FailoverChatModel
from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel, Options
from chatassist.adapters.llm.scripted import ScriptedChatModel
from chatassist.adapters.llm.taking_turns import TurnTakingChatModel
from chatassist.container.vendors import ConfiguredVendor, title_model_of
from chatassist.domain.ports.llm import ChatModel
from chatassist.domain.replies.titles import TITLES_AT_ONCE
from chatassist.settings import Settings
from chatassist.settings.llm import LlmSettings


def model_of(settings: Settings, vendors: Sequence[ConfiguredVendor], turn: asyncio.Lock) -> ChatModel:
    """Return what makes replies. Raises ValueError where it never could.

    `turn`: what it shares with the model that names sessions, for a vendor that takes one call at a time.
    """
    if not vendors:
        return ScriptedChatModel()
    titles = title_model_of(settings, vendors)
    titled = titles[0] if titles else None
    routes = [_route(settings.llm, vendor, turn if vendor is titled else None) for vendor in vendors]
    return FailoverChatModel(routes, rules=FailoverRules(calls=settings.llm.max_calls, deadline=settings.llm.deadline))


def title_models_of(settings: Settings, vendors: Sequence[ConfiguredVendor], turn: asyncio.Lock) -> Sequence[ChatModel]:
    """Return the model that names sessions, or nothing where none is set; its connections are taken from no reply.

    It is asked once, and nobody else in its stead: a session goes without. `turn`: see `model_of`. Raises ValueError
    where it is nobody's.
    """
    found = title_model_of(settings, vendors)
    if found is None:
        return []
    vendor, model = found
    at_once = TITLES_AT_ONCE if vendor.kind.at_once is None else 1
    return [_in_turn(bare_model(settings.llm, vendor, model, at_once=at_once), vendor, turn)]


def bare_model(
    llm: LlmSettings, vendor: ConfiguredVendor, model: str, *, at_once: int, temperature: float | None = None
) -> OpenAiCompatibleChatModel:
    """Return one vendor's model as it is: one call for each reply. `at_once`: replies, and so connections."""
    options = Options(
        temperature=temperature,
        max_output_tokens=llm.max_output_tokens,
        thinking=vendor.thinking,
        max_connections=at_once,
    )
    return OpenAiCompatibleChatModel(vendor.access, model=model, idle_timeout=llm.idle_timeout, options=options)


def _route(llm: LlmSettings, vendor: ConfiguredVendor, turn: asyncio.Lock | None) -> Route:
    """Return the way to a vendor. `turn`: shared with titles, None where it makes none."""
    at_once = _at_once(llm, vendor, titled=turn is not None)
    bare = bare_model(llm, vendor, vendor.default.upstream, at_once=at_once, temperature=llm.temperature)
    alone = bare if turn is None else _in_turn(bare, vendor, turn)
    capped = CappedChatModel(alone, at_once=at_once, waiting=llm.max_waiting)
    return Route(
        name=vendor.name,
        model=BreakingChatModel(capped, name=vendor.name),
        models={model.id: model.upstream for model in vendor.models},
        default=vendor.default.upstream,
    )


def _in_turn(model: ChatModel, vendor: ConfiguredVendor, turn: asyncio.Lock) -> ChatModel:
    return TurnTakingChatModel(model, turn) if vendor.kind.at_once == 1 else model


def _at_once(llm: LlmSettings, vendor: ConfiguredVendor, *, titled: bool) -> int:
    """Return how many replies the vendor may make at a time; where it says how many calls, one is left for titles."""
    known = vendor.kind.at_once
    if known is None:
        return llm.max_connections
    return min(llm.max_connections, max(known - titled, 1))
