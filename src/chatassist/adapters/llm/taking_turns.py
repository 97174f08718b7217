"""Chat models of one vendor that takes a single call at a time: they take turns, in the order they came."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from chatassist.adapters.closing import close
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk


class TurnTakingChatModel(ChatModel):
    """Speaks while it has `turn`, which it shares with the others. How many may wait for it is bounded elsewhere."""

    def __init__(self, model: ChatModel, turn: asyncio.Lock) -> None:
        self._model = model
        self._turn = turn

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield what the model says once nobody else is speaking; see ChatModel."""
        async with self._turn, aclosing(self._model.stream(prompt)) as chunks:
            async for chunk in chunks:
                yield chunk

    def room(self, model: str | None) -> float:
        """Return what the model says; see ChatModel."""
        return self._model.room(model)

    async def aclose(self) -> None:
        """Close the model, if it can be closed."""
        await close(self._model)
