"""So many at a time, so many in a queue, and no place lost whoever leaves when."""

import asyncio
import random
from contextlib import aclosing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatassist.adapters.llm.capped import CappedChatModel
from chatassist.adapters.llm.not_called import QueueFull
from chatassist.domain.errors import ChatAssistError, LlmOverloaded, LlmUnavailable
from tests.unit.takes import Takes, asking, hear
from tests.unit.worlds import until

Reader = asyncio.Task[str | ChatAssistError]


class Bench:
    """A vendor that speaks until it is told to end, behind a cap."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self.end = asyncio.Event()
        self.vendor = Takes(("so far", self.end))
        self.model = CappedChatModel(self.vendor, at_once=at_once, waiting=waiting)

    async def readers(self, count: int) -> list[Reader]:
        """So many more readers, who have come as far as they can."""
        readers = [asyncio.create_task(hear(self.model, asking(f"{number}"))) for number in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return readers

    async def all_leave(self, readers: list[Reader]) -> list[str | ChatAssistError]:
        self.end.set()
        async with asyncio.timeout(5):
            return await asyncio.gather(*readers)

    @property
    def has_room(self) -> bool:
        return self.model.room(None) > 0

    @property
    def questions(self) -> list[str]:
        return [prompt.utterances[-1].content for prompt in self.vendor.prompts]


async def left(reader: Reader) -> None:
    reader.cancel()
    await asyncio.wait({reader})


async def test_no_more_than_allowed_are_answered_at_once() -> None:
    bench = Bench(at_once=3, waiting=10)

    readers = await bench.readers(10)
    assert bench.vendor.open == 3

    assert await bench.all_leave(readers) == ["so far"] * 10
    assert bench.vendor.most_open == 3


async def test_those_who_wait_get_their_turn_in_the_order_they_came() -> None:
    bench = Bench(at_once=1, waiting=10)

    await bench.all_leave(await bench.readers(10))

    assert bench.questions == [f"{number}" for number in range(10)]


async def test_whoever_finds_the_queue_full_is_refused_at_once() -> None:
    bench = Bench(at_once=2, waiting=3)
    readers = await bench.readers(5)

    error = await hear(bench.model)

    assert isinstance(error, QueueFull)
    assert isinstance(error, LlmOverloaded)
    assert await bench.all_leave(readers) == ["so far"] * 5


async def test_without_a_queue_nobody_waits() -> None:
    bench = Bench(at_once=1, waiting=0)
    [reader] = await bench.readers(1)

    assert isinstance(await hear(bench.model), QueueFull)

    await bench.all_leave([reader])
    assert await hear(bench.model) == "so far"


async def test_there_is_room_while_a_place_is_free_or_one_in_the_queue() -> None:
    bench = Bench(at_once=1, waiting=1)
    assert bench.has_room
    [first] = await bench.readers(1)
    assert bench.has_room
    [second] = await bench.readers(1)
    assert not bench.has_room

    await left(second)
    assert bench.has_room

    await left(first)
    assert bench.has_room


async def test_room_is_a_matter_of_what_is_inside_too() -> None:
    bench = Bench(at_once=1, waiting=1)
    bench.vendor.full = True

    assert not bench.has_room
    assert bench.vendor.rooms == [None]


async def test_a_place_is_free_again_after_an_error() -> None:
    vendor = Takes(LlmUnavailable(), ("so far", LlmUnavailable()), "an answer")
    model = CappedChatModel(vendor, at_once=1, waiting=0)

    heard = [await hear(model) for _ in range(3)]

    assert [type(each) for each in heard] == [LlmUnavailable, LlmUnavailable, str]


async def test_a_place_is_free_again_after_closing() -> None:
    bench = Bench(at_once=1, waiting=0)
    async with aclosing(bench.model.stream(asking())) as chunks:
        await anext(chunks)

    assert bench.vendor.open == 0
    await bench.all_leave(await bench.readers(1))


async def test_a_stream_that_nobody_reads_takes_no_place() -> None:
    bench = Bench(at_once=1, waiting=0)

    await bench.model.stream(asking()).aclose()
    unread = bench.model.stream(asking())

    await bench.all_leave(await bench.readers(1))
    await unread.aclose()


@pytest.mark.parametrize("who", range(4))
async def test_whoever_leaves_amid_it_gives_up_one_place_or_one_turn(who: int) -> None:
    bench = Bench(at_once=2, waiting=2)
    readers = await bench.readers(4)

    await left(readers.pop(who))

    readers += await bench.readers(1)
    assert not bench.has_room
    assert await bench.all_leave(readers) == ["so far"] * 4
    assert bench.vendor.most_open == 2


async def test_whoever_leaves_as_his_turn_comes_hands_it_on() -> None:
    bench = Bench(at_once=1, waiting=2)
    first = bench.model.stream(asking("first"))
    await anext(first)
    second, third = await bench.readers(2)

    await first.aclose()  # its place is the second's, who has not run yet
    second.cancel()

    assert await bench.all_leave([third]) == ["so far"]
    assert second.cancelled()
    assert bench.questions == ["first", "1"]


async def test_whoever_leaves_just_before_his_turn_comes_does_not_get_it() -> None:
    bench = Bench(at_once=1, waiting=2)
    first = bench.model.stream(asking("first"))
    await anext(first)
    second, third, fourth = *(await bench.readers(2)), asyncio.create_task(hear(bench.model, asking("fourth")))

    second.cancel()
    await first.aclose()  # the second has not run yet

    assert await bench.all_leave([third, fourth]) == ["so far"] * 2
    assert bench.questions == ["first", "1", "fourth"]
    assert bench.vendor.most_open == 1


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 3), st.integers(0, 4))
def test_no_place_is_lost_or_doubled_whoever_leaves_when(chance: random.Random, at_once: int, waiting: int) -> None:
    asyncio.run(storm(chance, at_once, waiting))


async def storm(chance: random.Random, at_once: int, waiting: int) -> None:
    rest = asyncio.Event()
    vendor = Takes(("so", rest, "far"))
    model = CappedChatModel(vendor, at_once=at_once, waiting=waiting)
    readers = [asyncio.create_task(hear(model))]
    for _ in range(100):
        await something_happens(chance, model, readers, rest)
    rest.set()
    await asyncio.wait(readers, timeout=5)
    assert vendor.open == 0
    assert vendor.most_open <= at_once
    vendor.takes = (("so far", asyncio.Event()),)
    late = [asyncio.create_task(hear(model)) for _ in range(at_once + waiting + 1)]
    await until(late[-1].done)
    assert (vendor.open, sum(reader.done() for reader in late)) == (at_once, 1), "all places are there, and no more"
    for reader in late:
        reader.cancel()
    await asyncio.wait(late)


async def something_happens(
    chance: random.Random, model: CappedChatModel, readers: list[Reader], rest: asyncio.Event
) -> None:
    match chance.randrange(6):
        case 0:
            readers.append(asyncio.create_task(hear(model)))
        case 1:
            chance.choice(readers).cancel()
        case 2:
            await asyncio.sleep(0)
        case 3:
            await peek(model)
        case 4:
            rest.set()
        case 5:
            rest.clear()


async def peek(model: CappedChatModel) -> None:
    """Read the first piece, if it comes soon, and leave."""
    with suppress(ChatAssistError, TimeoutError):
        async with asyncio.timeout(0.001), aclosing(model.stream(asking())) as chunks:
            await anext(chunks)


async def test_closing_closes_what_is_inside() -> None:
    bench = Bench(at_once=1, waiting=0)

    await bench.model.aclose()

    assert bench.vendor.closed
