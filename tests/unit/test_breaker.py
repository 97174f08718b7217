"""When a vendor is left alone, for how long, who may ask it again, and what is not its fault."""

import asyncio
import logging
from contextlib import aclosing

import pytest

from chatassist.adapters.llm.breaker import BreakerRules, BreakingChatModel
from chatassist.adapters.llm.not_called import BreakerOpen, LeftAlone, OverloadLasts, QueueFull, RefusalLasts
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
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.turns import FinishReason
from tests.unit.takes import HandTime, Take, Takes, asking, hear
from tests.unit.worlds import until

BLOCKED = Chunk(finish_reason=FinishReason.BLOCKED)
DOWN = LlmUnavailable("HTTP 502")


class Bench:
    """A vendor behind a breaker that opens after two failures, for 30 seconds, 100 at most."""

    def __init__(self, *takes: Take) -> None:
        self.vendor = Takes(*takes)
        self.time = HandTime()
        rules = BreakerRules(failures=2, pause=30, longest_pause=100)
        self.model = BreakingChatModel(self.vendor, name="acme", rules=rules, clock=self.time)

    def next(self, *takes: Take) -> None:
        """Have the vendor play these from now on."""
        self.vendor.takes = takes
        self.vendor.prompts.clear()

    async def hears(self, *takes: Take) -> list[str | ChatAssistError]:
        """Ask once for each of these takes."""
        self.next(*takes)
        return [await hear(self.model) for _ in takes]

    async def opened(self) -> "Bench":
        await self.hears(DOWN, DOWN)
        assert await self.is_open()
        return self

    async def is_open(self) -> bool:
        """Ask once. An answer of the vendor is a failure that does not count, so that this changes nothing."""
        self.next(ContextTooLong())
        return isinstance(await hear(self.model), LeftAlone)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- Opening --------------------------------------------------------------------------------------------------------


async def test_nothing_is_changed_while_the_vendor_answers(bench: Bench) -> None:
    assert await bench.hears("one", "two") == ["one", "two"]


@pytest.mark.parametrize("failure", [LlmUnavailable, LlmOverloaded, LlmTimeout])
async def test_failures_in_a_row_open_it(bench: Bench, failure: type[ChatAssistError]) -> None:
    await bench.hears(failure())
    assert not await bench.is_open()

    await bench.hears(failure())
    assert await bench.is_open()


async def test_five_failures_open_it_for_half_a_minute_unless_told_otherwise() -> None:
    vendor, time = Takes(DOWN), HandTime()
    model = BreakingChatModel(vendor, name="acme", clock=time)

    errors = [await hear(model) for _ in range(6)]

    assert (vendor.calls, errors[:5]) == (5, [DOWN] * 5)
    assert isinstance(errors[5], BreakerOpen)
    assert errors[5].retry_after == 30


async def test_a_vendor_that_limits_us_is_alive_and_asked_again_when_it_says(bench: Bench) -> None:
    told, mute = LlmOverloaded(retry_after=8), LlmOverloaded()
    for error, seconds in ((told, 8), (mute, 5)):
        await bench.hears(error, error)
        refused = await hear(bench.model)
        assert isinstance(refused, OverloadLasts)
        assert refused.retry_after == seconds
        bench.time.now += seconds
        assert await bench.hears("an answer") == ["an answer"]


async def test_a_limit_of_an_hour_is_not_waited_for(bench: Bench) -> None:
    await bench.hears(LlmOverloaded(retry_after=3600), LlmOverloaded(retry_after=3600))

    refused = await hear(bench.model)
    assert isinstance(refused, OverloadLasts)
    assert refused.retry_after == 30


async def test_a_refused_key_stays_what_users_are_told(bench: Bench) -> None:
    await bench.hears(LlmKeyRefused())

    refused = await hear(bench.model)
    assert isinstance(refused, RefusalLasts)
    assert (refused.slug, refused.retry_after) == ("llm_misconfigured", None)


async def test_an_answer_ends_the_row(bench: Bench) -> None:
    await bench.hears(DOWN, "an answer", DOWN)

    assert not await bench.is_open()


@pytest.mark.parametrize("failure", [LlmUnpaid, LlmKeyRefused])
async def test_what_only_the_operator_can_mend_opens_it_at_once(bench: Bench, failure: type[ChatAssistError]) -> None:
    error = failure()

    assert await bench.hears(error) == [error]

    assert await bench.is_open()


async def test_a_failure_after_the_first_piece_counts_too(bench: Bench) -> None:
    await bench.hears(("so far", DOWN), ("so far", DOWN))

    assert await bench.is_open()


NOT_ITS_FAULT = [LlmMisconfigured, LlmParameterRefused, ContextTooLong, QueueFull]


@pytest.mark.parametrize("failure", NOT_ITS_FAULT)
async def test_what_tells_nothing_of_the_vendor_does_not_count(bench: Bench, failure: type[ChatAssistError]) -> None:
    await bench.hears(*[failure() for _ in range(9)])
    assert not await bench.is_open()

    await bench.hears(DOWN, failure(), DOWN)
    assert await bench.is_open(), "and does not end the row either"


async def test_blocked_content_does_not_count(bench: Bench) -> None:
    await bench.hears(*[BLOCKED] * 9)

    assert not await bench.is_open()


async def test_readers_who_leave_do_not_count(bench: Bench) -> None:
    bench.next(("so far", asyncio.Event()))
    for _ in range(3):
        chunks = bench.model.stream(asking())
        await anext(chunks)
        await chunks.aclose()
    for _ in range(3):
        reader = asyncio.create_task(hear(bench.model))
        await until(lambda: bench.vendor.open)
        reader.cancel()
        await asyncio.wait({reader})

    assert bench.vendor.open == 0
    assert not await bench.is_open()


# --- Open -----------------------------------------------------------------------------------------------------------


async def test_while_it_is_open_the_vendor_is_left_alone_until_the_next_probe(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 10
    bench.next("an answer")

    error = await hear(bench.model)

    assert bench.vendor.calls == 0
    assert isinstance(error, BreakerOpen)
    assert isinstance(error, LlmUnavailable)
    assert error.retry_after == 20


async def test_calls_under_way_when_it_opens_change_nothing_more(bench: Bench) -> None:
    rest = asyncio.Event()
    bench.next(("so far", rest, DOWN))
    readers = [asyncio.create_task(hear(bench.model)) for _ in range(9)]
    await until(lambda: bench.vendor.open == 9)
    bench.next(("so far", rest, "and the end"))
    readers.append(asyncio.create_task(hear(bench.model)))
    await until(lambda: bench.vendor.open == 10)
    await bench.opened()

    rest.set()
    await asyncio.wait(readers)

    assert await bench.is_open(), "though one of them was answered"
    bench.time.now += 30
    assert await bench.hears("an answer") == ["an answer"], "and the others have not made it longer"


async def test_a_vendor_that_is_left_alone_is_not_busy(bench: Bench) -> None:
    await bench.opened()
    assert bench.model.room("m") > 0
    bench.vendor.full = True

    assert bench.model.room("m") == 0
    assert bench.vendor.rooms == ["m", "m"]


# --- Half open ------------------------------------------------------------------------------------------------------


async def test_a_probe_that_is_answered_closes_it(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 30

    assert await bench.hears("an answer", DOWN, "an answer") == ["an answer", DOWN, "an answer"]


async def test_exactly_one_probe_is_let_through(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 30
    answer = asyncio.Event()
    bench.next((answer, "an answer"))

    readers = [asyncio.create_task(hear(bench.model)) for _ in range(100)]
    await until(lambda: sum(reader.done() for reader in readers) == 99)
    answer.set()
    heard = await asyncio.gather(*readers)

    assert bench.vendor.calls == 1
    assert heard.count("an answer") == 1
    assert {error.retry_after for error in heard if isinstance(error, BreakerOpen)} == {1}


async def test_a_call_from_before_that_ends_meanwhile_makes_no_room_for_another_probe(bench: Bench) -> None:
    bench.next(("so far", asyncio.Event()))
    before = bench.model.stream(asking())
    await anext(before)
    await bench.opened()
    bench.time.now += 30
    bench.next(asyncio.Event(), "another answer")
    probe = asyncio.create_task(hear(bench.model))
    await until(lambda: bench.vendor.calls)

    await before.aclose()

    assert isinstance(await hear(bench.model), BreakerOpen)
    probe.cancel()
    await asyncio.wait({probe})


async def test_each_failed_probe_doubles_the_pause_up_to_the_longest(bench: Bench) -> None:
    await bench.opened()

    for pause, following in ((30, 60), (60, 100), (100, 100)):
        bench.time.now += pause - 0.1
        assert isinstance((await bench.hears("an answer"))[0], BreakerOpen)
        bench.time.now += 0.1
        assert await bench.hears(DOWN) == [DOWN]
        error = await hear(bench.model)
        assert isinstance(error, BreakerOpen)
        assert error.retry_after == following


async def test_one_failure_of_a_probe_is_enough() -> None:
    vendor, time = Takes(LlmUnpaid(), DOWN), HandTime()
    model = BreakingChatModel(vendor, name="acme", clock=time)
    await hear(model)
    time.now += 30

    assert await hear(model) is DOWN

    assert isinstance(await hear(model), BreakerOpen)


async def test_after_an_answer_pauses_are_short_again(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 30
    await bench.hears(DOWN)
    bench.time.now += 60
    await bench.hears("an answer")

    await bench.opened()

    error = await hear(bench.model)
    assert isinstance(error, BreakerOpen)
    assert error.retry_after == 30


@pytest.mark.parametrize("failure", NOT_ITS_FAULT)
async def test_a_probe_that_tells_nothing_of_the_vendor_leaves_the_next_one_to_probe(
    bench: Bench, failure: type[ChatAssistError]
) -> None:
    await bench.opened()
    bench.time.now += 30
    error = failure()
    assert await bench.hears(error) == [error]
    half_open = asyncio.Event()
    bench.next((half_open, "an answer"))

    probe = asyncio.create_task(hear(bench.model))
    await until(lambda: bench.vendor.open)

    assert isinstance(await hear(bench.model), BreakerOpen)
    half_open.set()
    assert await probe == "an answer"


async def test_a_probe_whose_reader_leaves_neither_closes_nor_opens_it(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 30
    bench.next(asyncio.Event())
    for _ in range(3):
        probe = asyncio.create_task(hear(bench.model))
        await until(lambda: bench.vendor.open)
        assert isinstance(await hear(bench.model), BreakerOpen)
        probe.cancel()
        await asyncio.wait({probe})

    assert await bench.hears(DOWN) == [DOWN], "the next one probes"
    assert await bench.is_open()


async def test_once_the_probe_speaks_others_may_ask(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 30
    bench.next(("so far", asyncio.Event()), "an answer")

    async with aclosing(bench.model.stream(asking())) as probe:
        await anext(probe)
        assert await hear(bench.model) == "an answer"


async def test_until_a_reply_is_whole_one_more_failure_opens_it_for_longer(bench: Bench) -> None:
    await bench.opened()
    bench.time.now += 30

    await bench.hears(("so far", DOWN))

    error = await hear(bench.model)
    assert isinstance(error, BreakerOpen)
    assert error.retry_after == 60


# --- What operators are told, and the end ---------------------------------------------------------------------------


async def test_opening_and_closing_are_one_line_each(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await bench.opened()
    await bench.hears("refused", "refused")
    bench.time.now += 30
    await bench.hears("an answer", "an answer")

    opened, closed = (vars(record) for record in caplog.records)

    assert (opened["levelname"], opened["vendor"], opened["seconds"]) == ("WARNING", "acme", 30)
    assert (opened["reason"], opened["detail"]) == ("llm_unavailable", "HTTP 502")
    assert (closed["levelname"], closed["vendor"]) == ("INFO", "acme")


async def test_closing_closes_what_is_inside(bench: Bench) -> None:
    await bench.model.aclose()

    assert bench.vendor.closed
