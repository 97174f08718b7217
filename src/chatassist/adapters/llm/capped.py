"""A chat model that speaks to so many at a time; so many more wait for their turn, and nobody else is taken."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from chatassist.adapters.closing import close
from chatassist.adapters.llm.not_called import QueueFull
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk


class CappedChatModel(ChatModel):
    """Has at most `at_once` replies under way; at most `waiting` others get their turn in the order they came."""

    def __init__(self, model: ChatModel, *, at_once: int, waiting: int) -> None:
        self._model = model
        self._free = at_once
        self._waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield what the model says once there is a place. Raises QueueFull where there is none even to wait."""
        await self._enter()
        try:
            async with aclosing(self._model.stream(prompt)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._leave()

    def room(self, model: str | None) -> float:
        """Return how many places are free, those in the queue included; see ChatModel."""
        return min(self._free + self._waiting - len(self._queue), self._model.room(model))

    async def aclose(self) -> None:
        """Close the model, if it can be closed."""
        await close(self._model)

    async def _enter(self) -> None:
        if self._free:  # then nobody waits
            self._free -= 1
            return
        if len(self._queue) >= self._waiting:
            raise QueueFull("as many replies as allowed wait for the vendor")
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place came, but nobody is there any more to take it
                self._leave()
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def _leave(self) -> None:
        """Hand the place to whoever has waited longest, or keep it free."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
