"""Failover, breaker and cap over the real adapter and vendors that do what vendors do: who is asked how often."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from chatassist.adapters.llm.attempts import FailoverRules, Route
from chatassist.adapters.llm.breaker import BreakingChatModel
from chatassist.adapters.llm.capped import CappedChatModel
from chatassist.adapters.llm.failover import FailoverChatModel
from chatassist.adapters.llm.not_called import OverloadLasts
from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel, Options
from chatassist.domain.errors import (
    ChatAssistError,
    ContextTooLong,
    LlmKeyRefused,
    LlmMisconfigured,
    LlmOverloaded,
    LlmParameterRefused,
    LlmTimeout,
    LlmUnavailable,
    LlmUnpaid,
)
from chatassist.domain.turns import FinishReason
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, event, fails, hangs, piece, resets, says
from tests.integration.calling import calling
from tests.integration.heard import asking, hear


@dataclass
class Chain:
    """So many vendors, each within cap and breaker, and the failover before them. Waits are noted, not waited."""

    model: FailoverChatModel
    vendors: Sequence[LoopbackVendor]
    waits: list[float] = field(default_factory=list)

    @property
    def requests(self) -> list[int]:
        return [len(vendor.requests) for vendor in self.vendors]

    def fail(self, failing: Behaviour) -> None:
        for vendor in self.vendors:
            vendor.script = failing

    async def idle(self) -> None:
        """Return when nobody is being answered; within seconds, or TimeoutError."""
        for vendor in self.vendors:
            await is_idle(vendor)


async def is_idle(vendor: LoopbackVendor) -> None:
    await vendor.until(lambda: vendor.busy == 0)


Build = Callable[..., Any]


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    """Return what makes a chain."""
    async with AsyncExitStack() as stack:

        async def make(count: int, *, at_once: int = 10, waiting: int = 10, patient: bool = True) -> Chain:
            vendors = [await stack.enter_async_context(LoopbackVendor().open()) for _ in range(count)]
            waits: list[float] = []

            async def sleep(seconds: float) -> None:
                waits.append(seconds)

            routes = []
            options = Options(temperature=0.5)
            for name, vendor in zip("abc", vendors, strict=False):
                access = calling(vendor.base_url)
                bare = OpenAiCompatibleChatModel(access, model="?", idle_timeout=5 if patient else 0.3, options=options)
                breaking = BreakingChatModel(CappedChatModel(bare, at_once=at_once, waiting=waiting), name=name)
                routes.append(Route(name=name, model=breaking, models={}, default=f"{name}-1"))
                vendor.script = names_itself
            model = FailoverChatModel(routes, rules=FailoverRules(), sleep=sleep, jitter=lambda: 1.0)
            stack.push_async_callback(model.aclose)
            return Chain(model, vendors, waits)

        yield make


async def names_itself(call: Call) -> None:
    model = call.request.body["model"]
    await call.write(event({**piece("well", "stop"), "model": model}))
    await call.end()


FAILURES: dict[str, tuple[Behaviour, type[ChatAssistError], list[list[int]]]] = {
    # How it fails, as what, and the requests at each of one, two and three vendors that all fail so.
    "outage": (fails(502, "<html>Bad Gateway</html>"), LlmUnavailable, [[3], [2, 1], [1, 1, 1]]),
    "reset": (resets(), LlmUnavailable, [[3], [2, 1], [1, 1, 1]]),
    "nonsense": (fails(200, {"hello": 1}), LlmUnavailable, [[3], [2, 1], [1, 1, 1]]),
    "limited": (fails(429), LlmOverloaded, [[3], [2, 1], [1, 1, 1]]),
    "limited for long": (fails(429, headers={"Retry-After": "60"}), LlmOverloaded, [[1], [1, 1], [1, 1, 1]]),
    "silent": (hangs(), LlmTimeout, [[1], [1, 1], [1, 1, 1]]),
    "unpaid": (fails(402), LlmUnpaid, [[1], [1, 1], [1, 1, 1]]),
    "key": (fails(401), LlmKeyRefused, [[1], [1, 1], [1, 1, 1]]),
    "model": (fails(404, {"error": {"code": "model_not_found"}}), LlmMisconfigured, [[1], [1, 1], [1, 1, 1]]),
    "parameter": (fails(400), LlmParameterRefused, [[2], [2, 0], [2, 0, 0]]),
    "too long": (
        fails(400, {"error": {"code": "context_length_exceeded"}}),
        ContextTooLong,
        [[2], [2, 0], [2, 0, 0]],
    ),
    "reset amid text": (resets("so far"), LlmUnavailable, [[1], [1, 0], [1, 0, 0]]),
    "silent amid text": (hangs("so far"), LlmTimeout, [[1], [1, 0], [1, 0, 0]]),
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_where_all_fail_a_turn_costs_what_the_failure_is_worth(build: Build, how: str, count: int) -> None:
    failing, expected, requests = FAILURES[how]
    chain = await build(count, patient="silent" not in how)
    chain.fail(failing)

    heard = await hear(chain.model, asking("1", "2", "3"))

    assert type(heard.error) is expected
    assert chain.requests == requests[count - 1]
    await chain.idle()


@pytest.mark.parametrize("how", ["unpaid", "key", "model", "silent", "limited for long"])
async def test_the_next_vendor_answers_at_once_and_the_reply_names_its_model(build: Build, how: str) -> None:
    chain = await build(2, patient=how != "silent")
    chain.vendors[0].script = FAILURES[how][0]

    heard = await hear(chain.model)

    assert (heard.text, heard.chunks[-1].model) == ("well", "b-1")
    assert (chain.requests, chain.waits) == ([1, 1], [])


async def test_a_vendor_that_nobody_reaches_costs_no_more(build: Build) -> None:
    chain = await build(2)
    gone = chain.vendors[0]
    async with LoopbackVendor().open() as somebody:
        address = somebody.base_url
    bare = OpenAiCompatibleChatModel(calling(address), model="m", idle_timeout=5)
    route = Route(name="gone", model=bare, models={}, default="m")
    there = Route(name="there", model=chain.model, models={}, default="m")
    async with aclosing(FailoverChatModel([route, there], rules=FailoverRules(first_wait=0))) as model:
        heard = await hear(model)

    assert heard.text == "well"
    assert len(gone.requests) == 1


async def test_a_vendor_is_asked_again_when_it_said_that_it_may_be(build: Build) -> None:
    chain = await build(2)
    chain.vendors[0].answers(fails(429, headers={"Retry-After": "2.5"}), "well")

    heard = await hear(chain.model)

    assert heard.text == "well"
    assert (chain.requests, chain.waits) == ([2, 0], [2.5])


async def test_optional_fields_are_dropped_once(build: Build) -> None:
    chain = await build(1)
    chain.vendors[0].answers(fails(422), "well")

    assert (await hear(chain.model)).text == "well"

    first, second = (set(request.body) for request in chain.vendors[0].requests)
    assert first - second == {"temperature", "stream_options"}
    assert second == {"model", "messages", "stream"}


async def test_history_is_trimmed_once(build: Build) -> None:
    chain = await build(1)
    chain.vendors[0].answers(fails(400, {"error": {"code": "tokens_too_long"}}), "well")

    assert (await hear(chain.model, asking("1", "2", "3", "4", "5"))).text == "well"

    said = [[message["content"] for message in request.messages] for request in chain.vendors[0].requests]
    assert said == [["1", "2", "3", "4", "5"], ["3", "4", "5"]]


@pytest.mark.parametrize(
    "refusing",
    [
        fails(400, {"error": {"code": "content_filter"}}),
        fails(400, {"error": {"code": "data_inspection_failed"}}),
        says(finish="content_filter"),
        says("so ", finish="sensitive"),
    ],
)
async def test_refused_content_is_shown_to_no_other_vendor(build: Build, refusing: Behaviour) -> None:
    chain = await build(3)
    chain.vendors[0].script = refusing

    heard = await hear(chain.model)

    assert (heard.finish, heard.error) == (FinishReason.BLOCKED, None)
    assert chain.requests == [1, 0, 0]


async def test_a_vendor_that_failed_five_times_is_left_alone(build: Build) -> None:
    chain = await build(1)
    chain.fail(fails(503))

    errors = [(await hear(chain.model)).error for _ in range(4)]

    assert chain.requests == [5]
    assert [type(error) for error in errors] == [LlmOverloaded, OverloadLasts, OverloadLasts, OverloadLasts]
    assert errors[-1]
    assert errors[-1].retry_after == pytest.approx(5, abs=2)


async def test_what_no_vendor_has_room_for_is_told_before_and_refused(build: Build) -> None:
    chain = await build(2, at_once=1, waiting=1)
    rest = asyncio.Event()
    chain.fail(says("so far", rest))
    readers = [asyncio.create_task(hear(chain.model)) for _ in range(2)]
    await chain.vendors[0].until(lambda: chain.requests == [1, 0])
    assert chain.model.room(None) == 2
    readers += [asyncio.create_task(hear(chain.model)) for _ in range(2)]
    await chain.vendors[1].until(lambda: chain.requests == [1, 1])

    assert chain.model.room(None) == 0
    assert isinstance((await hear(chain.model)).error, LlmOverloaded)
    assert chain.requests == [1, 1]

    rest.set()
    assert [heard.text for heard in await asyncio.gather(*readers)] == ["so far"] * 4
    assert chain.requests == [2, 2]
    assert chain.model.room(None) == 4


@pytest.mark.parametrize("texts", [(), ("so far",)])
async def test_a_reader_who_leaves_ends_all_and_frees_the_place(build: Build, texts: tuple[str, ...]) -> None:
    chain = await build(2, at_once=1, waiting=1)
    chain.vendors[0].script = hangs(*texts)
    readers = [asyncio.create_task(hear(chain.model)) for _ in range(2)]
    await chain.vendors[0].until(lambda: chain.vendors[0].busy == 1)

    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)

    await chain.idle()
    chain.vendors[0].script = names_itself
    assert (await hear(chain.model)).chunks[-1].model == "a-1"
    assert chain.requests == [2, 0]
