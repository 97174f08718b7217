"""One chat model out of several vendors': whoever fails before the first piece is replaced within the same turn.

Which call follows which failure is settled by `attempts`; here calls are made, and waited for.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing

from chatassist.adapters.closing import close
from chatassist.adapters.llm.attempts import Attempts, FailoverRules, Route, ways
from chatassist.adapters.llm.not_called import NotCalled
from chatassist.domain.errors import (
    ContextTooLong,
    LlmMisconfigured,
    LlmParameterRefused,
    LlmUnavailable,
    LlmUnpaid,
    ModelFailed,
)
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk

log = logging.getLogger(__name__)

_ALARM_SECONDS = 60.0  # between two alarms about the same vendor


class FailoverChatModel(ChatModel):
    """Asks the vendors in order; a turn costs `rules.calls` vendor calls at most. Raises the last one's error.

    `clock` gives seconds, `jitter` numbers of [0, 1).
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        rules: FailoverRules,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not routes:
            raise ValueError("there is no vendor to ask")
        self._routes = routes
        self._rules = rules
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._quiet_until: dict[str, float] = {}

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield the reply of the first vendor that answers; from its first piece on, its errors are the turn's."""
        attempts = Attempts(prompt, self._routes, self._rules, clock=self._clock, jitter=self._jitter)
        while True:
            async with aclosing(attempts.route.model.stream(attempts.prompt)) as chunks:
                try:
                    beginning = await _beginning(chunks)
                except (ModelFailed, ContextTooLong) as error:
                    wait = self._settle(attempts, error)
                    if wait is None:
                        raise
                else:
                    for chunk in beginning:
                        yield chunk
                    async for chunk in chunks:
                        yield chunk
                    return
            if wait:
                await self._sleep(wait)

    def room(self, model: str | None) -> float:
        """Return how much room all have together, since each may answer; see ChatModel."""
        return sum(route.model.room(own) for route, own in ways(self._routes, model))

    async def aclose(self) -> None:
        """Close the models of all routes, as far as they can be closed."""
        async with AsyncExitStack() as stack:
            for route in self._routes:
                stack.push_async_callback(close, route.model)

    def _settle(self, attempts: Attempts, error: ModelFailed | ContextTooLong) -> float | None:
        """Return the seconds to wait before the next call, None if there is none; tell the operator."""
        failed = attempts.route.name
        self._alarm(failed, error)
        wait = attempts.after(error)
        if wait is not None and not isinstance(error, NotCalled):
            follows = {"next": attempts.route.name, "seconds": wait}
            log.warning("vendor failed, another call follows", extra={**_about(failed, error), **follows})
        return wait

    def _alarm(self, vendor: str, error: ModelFailed | ContextTooLong) -> None:
        """Say loudly that the operator has to act, but not for each turn."""
        if isinstance(error, LlmParameterRefused) or not isinstance(error, LlmUnpaid | LlmMisconfigured):
            return
        now = self._clock()
        if now >= self._quiet_until.get(vendor, now):
            self._quiet_until[vendor] = now + _ALARM_SECONDS
            log.error("vendor refuses to serve us: its operator has to act", extra=_about(vendor, error))


def _about(vendor: str, error: ModelFailed | ContextTooLong) -> dict[str, object]:
    return {"vendor": vendor, "reason": error.slug, "detail": str(error)}


async def _beginning(chunks: AsyncGenerator[Chunk, None]) -> Sequence[Chunk]:
    """Return the chunks up to the first that shows, or ends the reply. Raises what the model raises instead."""
    beginning: list[Chunk] = []
    async for chunk in chunks:
        beginning.append(chunk)
        if chunk.text or chunk.thinking or chunk.finish_reason:
            return beginning
    raise LlmUnavailable("the model ended without a finish reason")
