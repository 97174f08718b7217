"""Whatever happens to a reply and to whoever follows it: what a client puts together is what is stored."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chatassist.domain.errors import LlmUnavailable
from chatassist.domain.model import Prompt, User
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.replies import stop
from chatassist.domain.replies.lease import VALID_SECONDS
from chatassist.domain.turns import FinishReason, Status, Turn
from tests.unit.clients import Client
from tests.unit.worlds import WitnessedFeed, World

KEY = "key-1"
CLIENTS = 3

words = st.text(alphabet="ab 你😀", max_size=4)
says = st.tuples(st.just("says"), words, words)
here_or_there, anybody = st.integers(0, 1), st.integers(0, CLIENTS - 1)
finishes = st.tuples(st.just("finishes"), words, st.sampled_from([*list(FinishReason)[:3]]))
actions = st.one_of(
    says,
    says,
    st.tuples(st.just("chatters"), st.integers(200, 300)),  # more events than are held
    finishes,
    st.tuples(st.just("names")),  # the session, as soon as there is enough of the reply
    st.tuples(st.just("fails")),
    st.tuples(st.just("stops"), here_or_there),
    st.tuples(st.just("sends_again"), here_or_there),
    st.tuples(st.just("fails_and_begins_again"), here_or_there),
    st.tuples(st.just("comes"), anybody, here_or_there),
    st.tuples(st.just("leaves"), anybody),
    st.tuples(st.just("saves")),
    st.tuples(st.just("looks"), here_or_there),
    st.tuples(st.just("expires")),
    st.tuples(st.just("sleeps")),
)


class Story:
    """One reply, two processes, and clients that come and go."""

    def __init__(self, *, share_a_feed: bool) -> None:
        first = World(feed=WitnessedFeed(), title_script=self._name)
        second = World(beside=first, feed=first.feed if share_a_feed else None, title_script=self._name)
        self.worlds = (first, second)
        self.share_a_feed = share_a_feed
        self.clients: list[Client] = []
        self._vendor: asyncio.Queue[Chunk | Exception] = asyncio.Queue()  # of the attempt that began last
        self._named = asyncio.Event()
        for world in self.worlds:
            world.vendor.script = self._speak

    async def begins(self) -> None:
        self.anna: User = await self.worlds[0].somebody("anna")
        self.turn: Turn = (await self.worlds[0].send(self.anna, key=KEY)).turn
        self.clients = [Client(self.anna, self.turn.reply.id) for _ in range(CLIENTS)]
        await self.clients[0].comes(self.worlds[0])

    async def _speak(self, _: Prompt) -> AsyncGenerator[Chunk, None]:
        said: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self._vendor = said
        while True:
            chunk = await said.get()
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def _name(self, _: Prompt) -> AsyncGenerator[Chunk, None]:
        await self._named.wait()
        yield Chunk(text="a title", finish_reason=FinishReason.STOP)

    async def does(self, action: str, *given: Any) -> None:
        await getattr(self, action)(*given)
        for _ in range(40):
            await asyncio.sleep(0)

    async def says(self, text: str, thinking: str) -> None:
        await self._vendor.put(Chunk(text=text, thinking=thinking))

    async def chatters(self, count: int) -> None:
        for number in range(count):
            await self._vendor.put(Chunk(text=str(number % 10)))

    async def finishes(self, text: str, reason: FinishReason) -> None:
        await self._vendor.put(Chunk(text=text, finish_reason=reason))

    async def names(self) -> None:
        self._named.set()

    async def fails(self) -> None:
        await self._vendor.put(LlmUnavailable())

    async def stops(self, where: int) -> None:
        await self.worlds[where].replies.stop(self.anna, self.turn.reply.id)

    async def sends_again(self, where: int) -> None:
        await self.worlds[where].send(self.anna, key=KEY)

    async def fails_and_begins_again(self, where: int) -> None:
        await self.does("fails")
        await self.sends_again(where)

    async def comes(self, who: int, where: int) -> None:
        await self.clients[who].comes(self.worlds[where])

    async def leaves(self, who: int) -> None:
        await self.clients[who].leaves()

    async def saves(self) -> None:
        for world in self.worlds:
            await world.engine.save()

    async def looks(self, where: int) -> None:
        await self.worlds[where].engine.look_for_stopped()

    async def expires(self) -> None:
        for world in self.worlds:
            world.feed.expire()

    async def sleeps(self) -> None:
        """Both processes sleep for so long that nobody believes in their replies any more."""
        if not self.share_a_feed:  # there the adapter keeps the sleeper from writing into another's log
            self.worlds[0].clock.advance(VALID_SECONDS)

    async def kept(self) -> Turn:
        kept = await self.worlds[0].kept(self.turn)
        assert kept
        return kept

    async def ends(self) -> Turn:
        """Bring the reply to an end that stays."""
        while (kept := await self.kept()).reply.status in (Status.RUNNING, Status.FAILED):
            await self.does("sends_again", 0)
            await self.does("finishes", "!", FinishReason.STOP)
            for world in self.worlds:
                await world.engine.look_for_stopped()
        for world in self.worlds:
            await world.engine.look_for_stopped()
        return kept


@pytest.mark.parametrize("share_a_feed", [False, True], ids=["each its own feed", "one feed"])
@settings(
    max_examples=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(script=[("says", "a", ""), ("fails_and_begins_again", 1)], places=[0, 0, 0])
@example(script=[("says", "a", "b"), ("saves",), ("says", "c", ""), ("stops", 1)], places=[0, 0, 1])
@example(script=[("says", "a", ""), ("sleeps",), ("sends_again", 1), ("says", "b", "")], places=[0, 1, 0])
@example(script=[("says", "a", ""), ("sleeps",), ("sends_again", 0), ("comes", 1, 1)], places=[0, 1, 0])
@example(
    script=[("leaves", 0), ("chatters", 300), ("comes", 0, 0), ("finishes", "", FinishReason.BLOCKED)], places=[0, 1, 0]
)
@example(
    script=[("says", "a", "b"), ("chatters", 200), ("comes", 1, 1), ("names",), ("leaves", 0), ("says", "c", "d")],
    places=[0, 1, 0],
)
@example(script=[("chatters", 200), ("stops", 1), ("names",), ("comes", 1, 0)], places=[0, 1, 0])
@example(script=[("names",), ("chatters", 250), ("sleeps",), ("sends_again", 1)], places=[0, 1, 0])
@given(script=st.lists(actions, max_size=14), places=st.lists(here_or_there, min_size=CLIENTS, max_size=CLIENTS))
async def test_what_a_client_puts_together_is_what_is_stored(
    script: Sequence[tuple[Any, ...]], places: Sequence[int], share_a_feed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "OWNER_SECONDS", 0.0)
    story = Story(share_a_feed=share_a_feed)
    async with story.worlds[0], story.worlds[1]:
        await story.begins()
        for action, *given_to_it in script:
            await story.does(action, *given_to_it)
        kept = await story.ends()

        newcomer = Client(story.anna, story.turn.reply.id)
        for client, where in zip([*story.clients, newcomer], [*places, 1], strict=True):
            await client.comes(story.worlds[where])
        for client in [*story.clients, newcomer]:
            assert await client.hears_the_end() == kept.reply.end
            assert client.text == kept.reply.content
