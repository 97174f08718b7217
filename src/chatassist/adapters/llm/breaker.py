"""A chat model that leaves its vendor alone while it fails, and asks it again with one call at a time."""

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from chatassist.adapters.closing import close
from chatassist.adapters.llm.not_called import BreakerOpen, LeftAlone, NotCalled, OverloadLasts, RefusalLasts
from chatassist.domain.errors import (
    LlmKeyRefused,
    LlmOverloaded,
    LlmTimeout,
    LlmUnavailable,
    LlmUnpaid,
    ModelFailed,
)
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk

log = logging.getLogger(__name__)

_FAILURES = (LlmUnavailable, LlmOverloaded, LlmTimeout)
_HOPELESS = (LlmUnpaid, LlmKeyRefused)  # whatever is asked, until the operator acts
_ITS_WAIT = 5.0  # after which an overloaded vendor that names no time is asked again: it is alive
_PROBING_SECONDS = 1.0  # what is told to those who come while a probe is under way


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """`failures` in a row open it, for `pause` seconds; each failed probe doubles that, up to `longest_pause`.

    A vendor that limits us or is overloaded is asked again after what it says, at most that pause.
    """

    failures: int = 5
    pause: float = 30.0
    longest_pause: float = 300.0


class BreakingChatModel(ChatModel):
    """Refuses at once while the vendor `name` is known to fail; never waits.

    Only what tells of the vendor counts: not a refused model, parameter or content, nor a reader who left.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        name: str,
        rules: BreakerRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._breaker = _Breaker(name, rules or BreakerRules(), clock)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield what the model says. Raises LeftAlone while nobody is let through."""
        breaker = self._breaker
        call = breaker.enter()
        try:
            async with aclosing(self._model.stream(prompt)) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason:
                        breaker.succeeded(call)
                    elif breaker.is_open:
                        breaker.heard(call)
                    yield chunk
        except ModelFailed as error:
            breaker.failed(call, error)
            raise
        finally:
            breaker.left(call)

    def room(self, model: str | None) -> float:
        """See ChatModel; a vendor that fails is not busy."""
        return self._model.room(model)

    async def aclose(self) -> None:
        """Close the model, if it can be closed."""
        await close(self._model)


class _Breaker:
    """Counts. A call is known by the period it began in: what is heard of it after the next opening tells nothing new.

    Closed: `_until` is None. Open: it is the time of the next probe. Half open: that time has passed.
    """

    def __init__(self, name: str, rules: BreakerRules, clock: Callable[[], float]) -> None:
        self._name = name
        self._rules = rules
        self._clock = clock
        self._failures = 0  # in a row
        self._pause = rules.pause  # of the next opening
        self._until: float | None = None
        self._cause: ModelFailed | None = None  # of the last opening
        self._probing = False
        self._period = 0

    @property
    def is_open(self) -> bool:
        """Whether it is open, or half open."""
        return self._until is not None

    def enter(self) -> int:
        """Let a call through, and return its period. Raises LeftAlone."""
        if self._until is not None:
            left = self._until - self._clock()
            if left > 0 or self._probing:
                raise self._refusal(max(left, _PROBING_SECONDS))
            self._probing = True
        return self._period

    def heard(self, call: int) -> None:
        """Close, if it is the probe that speaks; it is on probation until a reply is whole: one failure opens again."""
        if call == self._period:
            self._close()
            self._failures = self._rules.failures - 1

    def succeeded(self, call: int) -> None:
        """Forget all failures: a reply is whole."""
        if call == self._period:
            self._close()
            self._failures = 0
            self._pause = self._rules.pause

    def failed(self, call: int, error: ModelFailed) -> None:
        """Count a failure that is the vendor's; open if it is one too many."""
        if call != self._period or isinstance(error, NotCalled) or not isinstance(error, _FAILURES + _HOPELESS):
            return
        self._failures += 1
        if self.is_open or self._failures >= self._rules.failures or isinstance(error, _HOPELESS):
            self._open(error)

    def left(self, call: int) -> None:
        """Let somebody else probe, if it was the probe that is over."""
        if call == self._period:
            self._probing = False

    def _refusal(self, seconds: float) -> LeftAlone:
        said = f"{self._name} is left alone: it failed"
        match self._cause:
            case LlmOverloaded():
                return OverloadLasts(said, retry_after=seconds)
            case LlmKeyRefused():
                return RefusalLasts(said)  # to come back does not help
            case _:
                return BreakerOpen(said, retry_after=seconds)

    def _open(self, error: ModelFailed) -> None:
        pause = self._pause
        if isinstance(error, LlmOverloaded):
            pause = min(vars(error).get("retry_after") or _ITS_WAIT, pause)
        else:
            self._pause = min(2 * pause, self._rules.longest_pause)
        log.warning(
            "vendor is left alone",
            extra={"vendor": self._name, "reason": error.slug, "detail": str(error), "seconds": pause},
        )
        self._cause = error
        self._until = self._clock() + pause
        self._probing = False
        self._period += 1

    def _close(self) -> None:
        if self._until is not None:
            log.info("vendor is asked again", extra={"vendor": self._name})
        self._until = None
