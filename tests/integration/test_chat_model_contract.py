"""What every chat model promises, whoever answers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from chatassist.adapters.closing import close
from chatassist.adapters.llm.attempts import FailoverRules, Route
from chatassist.adapters.llm.breaker import BreakingChatModel
from chatassist.adapters.llm.capped import CappedChatModel
from chatassist.adapters.llm.failover import FailoverChatModel
from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel
from chatassist.adapters.llm.scripted import Script, ScriptedChatModel, Step, plays
from chatassist.adapters.llm.taking_turns import TurnTakingChatModel
from chatassist.domain.errors import LlmUnavailable
from chatassist.domain.model import Prompt, is_clean
from chatassist.domain.ports.llm import ChatModel, Chunk
from chatassist.domain.turns import FinishReason
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Call, resets, says
from tests.integration.calling import calling
from tests.integration.heard import asking, hear


@dataclass
class Stage:
    """A model, and how a test makes whatever stands behind it speak."""

    model: ChatModel
    says: Callable[..., None]
    breaks: Callable[[str], None]
    refuses: Callable[[], None]
    echoes: Callable[[], None]
    begun: Callable[[], Awaitable[None]]
    """Returns when somebody is being answered."""
    idle: Callable[[], Awaitable[None]]
    """Returns when nobody is being answered; within a second, or TimeoutError."""


class Actor:
    """Plays one script after another, and counts those that are being played."""

    def __init__(self) -> None:
        self.script: Script = plays()
        self.playing = 0
        self.begun = asyncio.Event()

    async def __call__(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        self.playing += 1
        self.begun.set()
        try:
            async with aclosing(self.script(prompt)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.playing -= 1

    def plays(self, *steps: Step) -> None:
        self.script = plays(*steps)

    def echoes(self) -> None:
        async def script(prompt: Prompt) -> AsyncGenerator[Chunk, None]:
            for word in prompt.utterances[-1].content.partition(" "):
                await asyncio.sleep(0)
                yield Chunk(text=word)
            yield Chunk(finish_reason=FinishReason.STOP)

        self.script = script

    async def has_begun(self) -> None:
        await self.begun.wait()

    async def idle(self) -> None:
        assert self.playing == 0


Wrap = Callable[[ChatModel], ChatModel]


def bare(model: ChatModel) -> ChatModel:
    return model


def wrapped(model: ChatModel) -> ChatModel:
    """In all that may stand around a vendor; fewer at once than some tests have readers."""
    capped = CappedChatModel(model, at_once=8, waiting=100)
    route = Route(name="only", model=BreakingChatModel(capped, name="only"), models={}, default="m")
    return FailoverChatModel([route], rules=FailoverRules())


def taking_turns(model: ChatModel) -> ChatModel:
    return TurnTakingChatModel(model, asyncio.Lock())


def scripted(wrap: Wrap) -> Stage:
    actor = Actor()
    return Stage(
        model=wrap(ScriptedChatModel(actor)),
        says=actor.plays,
        breaks=lambda text: actor.plays(text, LlmUnavailable()),
        refuses=lambda: actor.plays(Chunk(finish_reason=FinishReason.BLOCKED)),
        echoes=actor.echoes,
        begun=actor.has_begun,
        idle=actor.idle,
    )


def openai_compatible(vendor: LoopbackVendor, wrap: Wrap) -> Stage:
    async def repeat(call: Call) -> None:
        await says(*call.request.messages[-1]["content"].partition(" "))(call)

    def echo() -> None:
        vendor.script = repeat

    return Stage(
        model=wrap(OpenAiCompatibleChatModel(calling(vendor.base_url, "k"), model="m", idle_timeout=5)),
        says=lambda *steps: vendor.answers(says(*steps)),
        breaks=lambda text: vendor.answers(resets(text)),
        refuses=lambda: vendor.answers(says("不", finish="content_filter")),
        echoes=echo,
        begun=lambda: vendor.until(lambda: vendor.busy > 0),
        idle=lambda: vendor.until(lambda: vendor.busy == 0),
    )


@pytest.fixture(params=[bare, wrapped, taking_turns])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    made: Wrap = request.param
    return made


@pytest.fixture(params=["scripted", "openai_compatible"])
async def stage(request: pytest.FixtureRequest, vendor: LoopbackVendor, wrap: Wrap) -> AsyncIterator[Stage]:
    stage = scripted(wrap) if request.param == "scripted" else openai_compatible(vendor, wrap)
    yield stage
    await close(stage.model)
    await vendor.until(lambda: vendor.open_connections == 0)


async def test_the_last_chunk_alone_has_a_finish_reason(stage: Stage) -> None:
    stage.says("你好", "，", "世界")

    heard = await hear(stage.model)

    assert heard.text == "你好，世界"
    assert [chunk.finish_reason for chunk in heard.chunks] == [None] * (len(heard.chunks) - 1) + [FinishReason.STOP]


async def test_every_chunk_is_whole_characters(stage: Stage) -> None:
    text = "汉字 👩‍👩‍👧 é 𠮷"
    stage.says(*text)

    heard = await hear(stage.model)

    assert heard.text == text
    assert all(is_clean(chunk.text) for chunk in heard.chunks)


async def test_text_comes_before_the_answer_is_whole(stage: Stage) -> None:
    rest = asyncio.Event()
    stage.says("first", rest, "second")

    async with aclosing(stage.model.stream(asking())) as chunks:
        assert (await anext(chunks)).text == "first"
        rest.set()
        assert (await anext(chunks)).text == "second"


async def test_text_stands_when_the_answer_breaks_off(stage: Stage) -> None:
    stage.breaks("so far")

    heard = await hear(stage.model)

    assert heard.text == "so far"
    assert isinstance(heard.error, LlmUnavailable)


async def test_refused_content_is_a_blocked_reply_and_no_error(stage: Stage) -> None:
    stage.refuses()

    heard = await hear(stage.model)

    assert (heard.finish, heard.error) == (FinishReason.BLOCKED, None)


async def test_closing_the_generator_ends_the_call(stage: Stage) -> None:
    stage.says("first", asyncio.Event())
    chunks = stage.model.stream(asking())
    await anext(chunks)

    await chunks.aclose()

    await stage.idle()


async def test_cancelling_the_reader_before_the_first_piece_ends_the_call(stage: Stage) -> None:
    stage.says(asyncio.Event())
    reader = asyncio.create_task(hear(stage.model))
    await stage.begun()

    reader.cancel()
    await asyncio.wait({reader})

    assert reader.cancelled()
    await stage.idle()


async def test_cancelling_the_reader_amid_the_pieces_ends_the_call(stage: Stage) -> None:
    stage.says("first", asyncio.Event())
    heard = asyncio.Event()

    async def read() -> None:
        async with aclosing(stage.model.stream(asking())) as chunks:
            async for _ in chunks:
                heard.set()

    reader = asyncio.create_task(read())
    await heard.wait()

    reader.cancel()
    await asyncio.wait({reader})

    assert reader.cancelled()
    await stage.idle()


async def test_a_deadline_around_the_reader_ends_the_call(stage: Stage) -> None:
    stage.says("first", asyncio.Event())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await hear(stage.model)

    await stage.idle()


async def test_concurrent_streams_do_not_mix(stage: Stage) -> None:
    stage.echoes()
    questions = [f"question {number}" for number in range(100)]

    heard = await asyncio.gather(*(hear(stage.model, asking(question)) for question in questions))

    assert [one.text for one in heard] == questions
    assert all(one.finish is FinishReason.STOP for one in heard)
    await stage.idle()
