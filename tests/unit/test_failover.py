"""Which vendor is asked after which failure, how often and when; and what nobody may be asked twice."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatassist.adapters.llm.attempts import FailoverRules, Route
from chatassist.adapters.llm.failover import FailoverChatModel
from chatassist.adapters.llm.not_called import BreakerOpen, QueueFull
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
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.turns import FinishReason
from tests.unit.takes import HandTime, Takes, asking, hear

BLOCKED = Chunk(finish_reason=FinishReason.BLOCKED)


@pytest.fixture
def time() -> HandTime:
    return HandTime()


def around(
    *vendors: Takes,
    time: HandTime | None = None,
    jitter: float = 1.0,
    rules: FailoverRules | None = None,
    models: Sequence[dict[str, str]] = (),
) -> FailoverChatModel:
    """The vendors as routes named a, b, c …, whose default models are a-1, b-1, c-1 …"""
    time = time or HandTime()
    routes = [
        Route(name=name, model=vendor, models=models[place] if models else {}, default=f"{name}-1")
        for place, (name, vendor) in enumerate(zip("abcdef", vendors, strict=False))
    ]
    return FailoverChatModel(
        routes, rules=rules or FailoverRules(), clock=time, sleep=time.sleep, jitter=lambda: jitter
    )


def calls(*vendors: Takes) -> list[int]:
    return [vendor.calls for vendor in vendors]


def asked_for(*vendors: Takes) -> list[str | None]:
    return [prompt.model for vendor in vendors for prompt in vendor.prompts]


# --- Who is asked ---------------------------------------------------------------------------------------------------


async def test_whoever_names_no_model_is_answered_by_the_first_vendors_default() -> None:
    a, b = Takes("from a"), Takes("from b")

    assert await hear(around(a, b)) == "from a"

    assert asked_for(a, b) == ["a-1"]


async def test_whoever_names_a_model_is_answered_by_the_vendor_that_has_it_under_its_own_name_for_it() -> None:
    a, b = Takes("from a"), Takes("from b")
    model = around(a, b, models=[{}, {"smart": "b-smart"}])

    assert await hear(model, asking("1", "2", "3", model="smart")) == "from b"

    assert b.prompts == [asking("1", "2", "3", model="b-smart")]
    assert a.calls == 0


async def test_those_that_have_the_model_come_first_then_the_others_with_their_defaults() -> None:
    a, b, c = Takes("from a"), Takes(LlmUnpaid()), Takes(LlmUnpaid())
    model = around(a, b, c, models=[{}, {"smart": "b-smart"}, {"smart": "c-smart"}])

    assert await hear(model, asking(model="smart")) == "from a"

    assert asked_for(b, c, a) == ["b-smart", "c-smart", "a-1"]


async def test_a_model_that_nobody_has_any_more_is_everybodys_default() -> None:
    a, b = Takes(LlmUnpaid()), Takes("from b")

    assert await hear(around(a, b, models=[{"new": "n"}, {}]), asking(model="old")) == "from b"

    assert asked_for(a, b) == ["a-1", "b-1"]


async def test_nobody_can_be_asked_where_there_is_no_vendor() -> None:
    with pytest.raises(ValueError, match="no vendor"):
        around()


# --- Again, or elsewhere --------------------------------------------------------------------------------------------

PASSING = [LlmOverloaded, LlmUnavailable]
LASTING = [LlmUnpaid, LlmKeyRefused, LlmMisconfigured, LlmTimeout]


@pytest.mark.parametrize("failure", PASSING)
@pytest.mark.parametrize(("count", "expected"), [(1, [3]), (2, [2, 1]), (3, [1, 1, 1]), (4, [1, 1, 1, 0])])
async def test_a_turn_costs_three_calls_of_which_each_vendor_gets_one(
    failure: type[ChatAssistError], count: int, expected: list[int]
) -> None:
    vendors = [Takes(failure()) for _ in range(count)]

    await hear(around(*vendors))

    assert calls(*vendors) == expected


@pytest.mark.parametrize("failure", LASTING)
async def test_what_lasts_is_not_tried_again_but_elsewhere_and_at_once(
    time: HandTime, failure: type[ChatAssistError]
) -> None:
    a, b = Takes(failure()), Takes("from b")

    assert await hear(around(a, b, time=time)) == "from b"

    assert (calls(a, b), time.waits) == ([1, 1], [])


@pytest.mark.parametrize("failure", LASTING)
async def test_what_lasts_ends_the_turn_of_an_only_vendor(failure: type[ChatAssistError]) -> None:
    error = failure()
    only = Takes(error)

    assert await hear(around(only)) is error

    assert only.calls == 1


async def test_calls_that_the_first_vendor_was_not_worth_are_the_next_ones() -> None:
    a, b = Takes(LlmUnpaid()), Takes(LlmOverloaded())

    await hear(around(a, b))

    assert calls(a, b) == [1, 2]


async def test_the_last_vendors_error_is_the_turns() -> None:
    last = LlmOverloaded(retry_after=77)

    error = await hear(around(Takes(LlmOverloaded(retry_after=2)), Takes(LlmUnpaid()), Takes(last)))

    assert error is last
    assert last.retry_after == 77


@pytest.mark.parametrize("failure", PASSING)
async def test_a_vendor_that_fails_once_answers_the_second_time(failure: type[ChatAssistError]) -> None:
    a, b = Takes(failure(), "from a"), Takes("from b")

    assert await hear(around(a, b)) == "from a"

    assert calls(a, b) == [2, 0]


async def test_blocked_content_is_shown_to_no_other_vendor() -> None:
    a, b = Takes(BLOCKED), Takes("from b")

    async with aclosing(around(a, b).stream(asking())) as chunks:
        assert [chunk async for chunk in chunks] == [BLOCKED]

    assert calls(a, b) == [1, 0]


async def test_a_reply_without_an_end_or_a_beginning_is_a_failure() -> None:
    class Silent(Takes):
        async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
            self.prompts.append(prompt)
            for nothing in tuple[Chunk, ...]():
                yield nothing

    a, b = Silent(), Takes("from b")

    assert await hear(around(a, b)) == "from b"

    assert a.calls == 2


async def test_a_defect_is_nobodys_failure() -> None:
    a, b = Takes(RuntimeError()), Takes("from b")

    with pytest.raises(RuntimeError):
        await hear(around(a, b))

    assert b.calls == 0


# --- Only before the first piece ------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [Chunk(text="so far"), Chunk(thinking="hm")])
@pytest.mark.parametrize("failure", [*PASSING, *LASTING, LlmParameterRefused, ContextTooLong])
async def test_after_the_first_piece_an_error_is_the_turns(piece: Chunk, failure: type[ChatAssistError]) -> None:
    error = failure()
    a, b = Takes((piece, error)), Takes("from b")

    assert await hear(around(a, b)) is error

    assert calls(a, b) == [1, 0]


async def test_what_shows_nothing_is_no_piece_and_none_of_it_is_left() -> None:
    a, b = Takes((Chunk(model="a"), LlmUnpaid())), Takes((Chunk(model="b"), "from b"))

    async with aclosing(around(a, b).stream(asking())) as chunks:
        heard = [chunk async for chunk in chunks]

    assert [(chunk.model, chunk.text) for chunk in heard[:2]] == [("b", ""), (None, "from b")]


# --- Waiting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("jitter", "waits"), [(0.0, [0.25, 0.5]), (0.5, [0.375, 0.75]), (1.0, [0.5, 1.0])])
async def test_waits_double_and_at_least_half_of_each_is_waited(
    time: HandTime, jitter: float, waits: list[float]
) -> None:
    await hear(around(Takes(LlmOverloaded()), time=time, jitter=jitter))

    assert time.waits == waits


async def test_every_vendors_waits_begin_small(time: HandTime) -> None:
    a, b = Takes(LlmOverloaded()), Takes(LlmUnavailable())

    await hear(around(a, b, time=time, rules=FailoverRules(calls=5)))

    assert (calls(a, b), time.waits) == ([4, 1], [0.5, 1.0, 2.0])
    time.waits.clear()
    a, b = Takes(LlmOverloaded(), LlmOverloaded(), LlmUnpaid()), Takes(LlmUnavailable())
    await hear(around(a, b, time=time, rules=FailoverRules(calls=5)))
    assert (calls(a, b), time.waits) == ([3, 2], [0.5, 1.0, 0.5])


async def test_a_vendor_is_left_alone_as_long_as_it_asks(time: HandTime) -> None:
    a = Takes(LlmOverloaded(retry_after=3), LlmOverloaded(retry_after=0.01), "at last")

    assert await hear(around(a, time=time)) == "at last"

    assert time.waits == [3, 1.0]


async def test_what_a_user_is_told_to_wait_is_not_what_the_vendor_asked_for(time: HandTime) -> None:
    assert LlmUnavailable().retry_after == 10  # the class's own

    assert await hear(around(Takes(LlmUnavailable(), "at last"), time=time)) == "at last"

    assert time.waits == [0.5]


async def test_a_failure_that_says_that_a_retry_is_in_vain_is_not_retried(time: HandTime) -> None:
    error = LlmOverloaded()
    error.retry_after = None
    a, b = Takes(error), Takes("from b")

    assert await hear(around(a, b, time=time)) == "from b"

    assert (a.calls, time.waits) == (1, [])


async def test_a_wait_beyond_our_patience_is_not_begun(time: HandTime) -> None:
    a, b = Takes(LlmOverloaded(retry_after=10.1)), Takes("from b")

    assert await hear(around(a, b, time=time)) == "from b"

    assert (a.calls, time.waits) == (1, [])


async def test_patience_is_for_all_waits_together(time: HandTime) -> None:
    only = Takes(LlmOverloaded(retry_after=6))

    error = await hear(around(only, time=time))

    assert (only.calls, time.waits) == (2, [6])
    assert isinstance(error, LlmOverloaded)
    assert error.retry_after == 6


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun(time: HandTime) -> None:
    a, b = Takes(LlmOverloaded(retry_after=4)), Takes("from b")

    assert await hear(around(a, b, time=time, rules=FailoverRules(deadline=4))) == "from b"

    assert (a.calls, time.waits) == (1, [])


async def test_no_call_begins_after_the_deadline(time: HandTime) -> None:
    a, b = Takes(LlmTimeout()), Takes("from b")
    a.on_call = lambda: setattr(time, "now", time.now + 120)

    assert isinstance(await hear(around(a, b, time=time)), LlmTimeout)

    assert b.calls == 0


# --- The same vendor, another way -----------------------------------------------------------------------------------


async def test_a_refused_parameter_is_left_out_once(time: HandTime) -> None:
    a, b = Takes(LlmParameterRefused(), "from a"), Takes("from b")

    assert await hear(around(a, b, time=time)) == "from a"

    assert a.prompts == [asking(model="a-1"), asking(model="a-1", bare=True)]
    assert (b.calls, time.waits) == (0, [])


async def test_a_parameter_that_is_refused_again_ends_the_turn() -> None:
    again = LlmParameterRefused()
    a, b = Takes(LlmParameterRefused(), again), Takes("from b")

    assert await hear(around(a, b)) is again

    assert calls(a, b) == [2, 0]


async def test_nothing_can_be_left_out_of_a_bare_prompt() -> None:
    only = Takes(LlmParameterRefused())

    assert isinstance(await hear(around(only), asking(bare=True)), LlmParameterRefused)

    assert only.calls == 1


async def test_a_prompt_that_is_too_long_is_shortened_once(time: HandTime) -> None:
    a, b = Takes(ContextTooLong(), "from a"), Takes("from b")

    assert await hear(around(a, b, time=time), asking("1", "2", "3", "4", "5")) == "from a"

    assert a.prompts[1:] == [asking("3", "4", "5", model="a-1")]
    assert (b.calls, time.waits) == (0, [])


async def test_a_prompt_that_is_still_too_long_ends_the_turn() -> None:
    still = ContextTooLong()
    a, b = Takes(ContextTooLong(), still), Takes("from b")

    assert await hear(around(a, b), asking("1", "2", "3", "4", "5")) is still

    assert calls(a, b) == [2, 0]


async def test_a_prompt_of_one_question_cannot_be_shortened() -> None:
    a, b = Takes(ContextTooLong()), Takes("from b")

    assert isinstance(await hear(around(a, b)), ContextTooLong)

    assert calls(a, b) == [1, 0]


async def test_a_prompt_can_be_made_bare_and_shortened() -> None:
    only = Takes(LlmParameterRefused(), ContextTooLong(), "at last")

    assert await hear(around(only), asking("1", "2", "3")) == "at last"

    assert only.prompts[-1] == asking("3", model="a-1", bare=True)


async def test_a_changed_prompt_is_kept_for_a_retry_and_the_next_vendor_gets_the_whole_one() -> None:
    a, b = Takes(ContextTooLong(), LlmOverloaded(), LlmOverloaded()), Takes("from b")

    assert await hear(around(a, b, rules=FailoverRules(calls=4)), asking("1", "2", "3")) == "from b"

    assert a.prompts[1:] == [asking("3", model="a-1")] * 2
    assert b.prompts == [asking("1", "2", "3", model="b-1")]


@pytest.mark.parametrize("failure", [LlmParameterRefused, ContextTooLong])
async def test_another_way_costs_a_call_too(failure: type[ChatAssistError]) -> None:
    last = failure()
    only = Takes(LlmOverloaded(), LlmOverloaded(), last)

    assert await hear(around(only), asking("1", "2", "3")) is last

    assert only.calls == 3


# --- Refusals of our own --------------------------------------------------------------------------------------------


async def test_a_full_queue_and_an_open_breaker_cost_no_call(time: HandTime) -> None:
    a, b, c = Takes(QueueFull()), Takes(BreakerOpen(retry_after=1)), Takes(LlmOverloaded())

    await hear(around(a, b, c, time=time))

    assert calls(a, b, c) == [1, 1, 3]
    assert time.waits == [0.5, 1.0]


async def test_where_only_we_refuse_our_refusal_is_the_turns() -> None:
    ours = BreakerOpen(retry_after=21)

    assert await hear(around(Takes(ours))) is ours

    assert ours.retry_after == 21
    assert (ours.slug, QueueFull().slug) == ("llm_unavailable", "llm_overloaded")


async def test_there_is_room_as_long_as_one_vendor_has_some() -> None:
    a, b = Takes(), Takes()
    model = around(a, b, models=[{}, {"smart": "b-smart"}])

    assert model.room("smart") == 6
    a.full = True
    assert model.room(None) == 3
    b.full = True
    assert model.room("smart") == 0

    assert (a.rooms, b.rooms) == (["a-1", "a-1", "a-1"], ["b-smart", "b-1", "b-smart"])


# --- What operators are told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [LlmUnpaid, LlmKeyRefused, LlmMisconfigured])
async def test_what_only_the_operator_can_mend_is_an_alarm_once_a_minute_for_each_vendor(
    time: HandTime, caplog: pytest.LogCaptureFixture, failure: type[ChatAssistError]
) -> None:
    model = around(Takes(failure("HTTP 4xx: our words")), Takes(failure("HTTP 4xx: our words")), time=time)

    for _ in range(3):
        await hear(model)
        time.now += 29.9
    alarms = [record for record in caplog.records if record.levelno == logging.ERROR]
    await hear(model)

    assert [vars(alarm)["vendor"] for alarm in alarms] == ["a", "b"]
    assert {(vars(alarm)["reason"], vars(alarm)["detail"]) for alarm in alarms} == {
        (failure.slug, "HTTP 4xx: our words")
    }
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 4


@pytest.mark.parametrize("failure", [*PASSING, LlmTimeout, LlmParameterRefused, ContextTooLong, BreakerOpen])
async def test_what_passes_is_no_alarm(caplog: pytest.LogCaptureFixture, failure: type[ChatAssistError]) -> None:
    await hear(around(Takes(failure()), Takes(failure())))

    assert all(record.levelno < logging.ERROR for record in caplog.records)


async def test_a_failure_that_users_do_not_see_is_told_with_what_follows_it(caplog: pytest.LogCaptureFixture) -> None:
    await hear(around(Takes(LlmOverloaded("HTTP 429")), Takes(LlmTimeout("silent")), Takes("at last")))

    told = [vars(record) for record in caplog.records]
    assert [(line["vendor"], line["next"], line["reason"], line["detail"]) for line in told] == [
        ("a", "b", "llm_overloaded", "HTTP 429"),
        ("b", "c", "llm_timeout", "silent"),
    ]


async def test_refusals_of_our_own_are_not_told_for_each_turn(caplog: pytest.LogCaptureFixture) -> None:
    await hear(around(Takes(QueueFull()), Takes(BreakerOpen()), Takes("at last")))

    assert caplog.records == []


# --- Leaving --------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_call() -> None:
    only = Takes(("first", asyncio.Event()))
    chunks = around(only).stream(asking())
    await anext(chunks)
    assert only.open == 1

    await chunks.aclose()

    assert only.open == 0


@pytest.mark.parametrize("steps", [(asyncio.Event(),), ("first", asyncio.Event())])
async def test_cancelling_the_reader_ends_the_call_and_makes_no_other(steps: tuple[str | asyncio.Event, ...]) -> None:
    a, b = Takes(steps), Takes("from b")
    begun = asyncio.Event()
    a.on_call = begun.set
    reader = asyncio.create_task(hear(around(a, b)))
    await begun.wait()
    await asyncio.sleep(0)

    reader.cancel()
    await asyncio.wait({reader})

    assert reader.cancelled()
    assert (a.open, b.calls) == (0, 0)


async def test_cancelling_the_reader_ends_a_wait() -> None:
    only = Takes(LlmOverloaded())
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert only.open == 0, "nothing is open while we wait"
        waiting.set()
        await asyncio.sleep(seconds)

    route = Route(name="a", model=only, models={}, default="a-1")
    model = FailoverChatModel([route], rules=FailoverRules(first_wait=9), sleep=sleep)
    reader = asyncio.create_task(hear(model))
    await waiting.wait()

    reader.cancel()
    await asyncio.wait({reader}, timeout=5)

    assert reader.cancelled()
    assert only.calls == 1


async def test_closing_closes_all_vendors_whatever_one_of_them_does() -> None:
    class Stubborn(Takes):
        async def aclose(self) -> None:
            raise OSError

    a, c = Takes(), Takes()

    with pytest.raises(OSError):  # noqa: PT011 - it has no words
        await around(a, Stubborn(), c).aclose()

    assert (a.closed, c.closed) == (True, True)


# --- Whatever happens -----------------------------------------------------------------------------------------------

FAILURES = st.sampled_from([*PASSING, *LASTING, LlmParameterRefused, ContextTooLong])
OUTCOMES = st.one_of(
    st.just("an answer"),
    st.just(BLOCKED),
    FAILURES.map(lambda failure: failure()),
    st.floats(0, 15).map(lambda seconds: LlmOverloaded(retry_after=seconds)),
    st.sampled_from([QueueFull, BreakerOpen]).map(lambda ours: ours()),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(OUTCOMES, min_size=1, max_size=4), min_size=1, max_size=5), st.floats(0, 0.999))
def test_a_turn_never_costs_more_than_three_calls_nor_more_patience_than_there_is(
    takes: list[list[str | Chunk | Exception]], jitter: float
) -> None:
    vendors = [Takes(*each) for each in takes]
    time = HandTime()

    heard = asyncio.run(hear(around(*vendors, time=time, jitter=jitter), asking("1", "2", "3")))

    outcomes = [take for vendor in vendors for take in vendor.played]
    assert sum(not isinstance(outcome, QueueFull | BreakerOpen) for outcome in outcomes) <= 3
    assert sum(time.waits) <= 10
    assert not any(vendor.open for vendor in vendors)
    assert isinstance(heard, str) or heard in outcomes
