"""What follows a vendor's failure within one turn: the same vendor again, the next one, or the end.

Calls nobody and waits for nothing itself.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from chatassist.adapters.llm.not_called import NotCalled
from chatassist.domain.errors import (
    ContextTooLong,
    LlmMisconfigured,
    LlmParameterRefused,
    LlmTimeout,
    LlmUnpaid,
    ModelFailed,
)
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way to an answer. `models`: what this vendor calls the models that users may name; `default`: for all else."""

    name: str
    model: ChatModel
    models: Mapping[str, str]
    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRules:
    """Bounds of one turn. `calls`: of all vendors together; `patience`: seconds that all waits may take together.

    `deadline`: seconds after which no other call begins; `first_wait`: seconds before the first retry of a vendor, at
    most, and half as many at least; the next wait is twice as long.
    """

    calls: int = 3
    patience: float = 10.0
    deadline: float = 120.0
    first_wait: float = 0.5


def ways(routes: Sequence[Route], model: str | None) -> list[tuple[Route, str]]:
    """Return who can be asked, in order, and for which model: first those that have the one named, then the others."""
    if model is None:
        return [(route, route.default) for route in routes]
    having = [(route, route.models[model]) for route in routes if model in route.models]
    return having + [(route, route.default) for route in routes if model not in route.models]


class Attempts:
    """The calls of one turn: `route` is to be given `prompt` next. `clock`: seconds; `jitter`: of [0, 1)."""

    route: Route
    prompt: Prompt
    _shortened: bool
    _backoff: float  # seconds before the next retry

    def __init__(
        self,
        asked: Prompt,
        routes: Sequence[Route],
        rules: FailoverRules,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._asked = asked
        self._untried = deque(ways(routes, asked.model))
        self._calls_left = rules.calls
        self._patience = rules.patience
        self._first_wait = rules.first_wait
        self._until = clock() + rules.deadline
        self._clock = clock
        self._jitter = jitter
        self._move_on()

    def after(self, error: ModelFailed | ContextTooLong) -> float | None:
        """Choose what follows a call that failed: return the seconds to wait before the next; None if none follows."""
        if not isinstance(error, NotCalled):
            self._calls_left -= 1
        if not self._calls_left or self._clock() >= self._until:
            return None
        match error:
            case LlmParameterRefused():
                return self._again(None if self.prompt.bare else replace(self.prompt, bare=True))
            case ContextTooLong():
                shortened, self._shortened = self._shortened, True
                return self._again(None if shortened else self.prompt.shortened())
            case NotCalled() | LlmUnpaid() | LlmMisconfigured() | LlmTimeout():  # the same again would be in vain
                return self._move_on()
        wait = self._wait(error)
        if wait is None:
            return self._move_on()
        self._patience -= wait
        self._backoff *= 2
        return wait

    def _again(self, prompt: Prompt | None) -> float | None:
        """Ask the same vendor another way, if there is one: what this vendor refuses so, the others refuse too."""
        if prompt is None:
            return None
        self.prompt = prompt
        return 0.0

    def _move_on(self) -> float | None:
        if not self._untried:
            return None
        self.route, model = self._untried.popleft()
        self.prompt = replace(self._asked, model=model)
        self._shortened = False
        self._backoff = self._first_wait
        return 0.0

    def _wait(self, error: ModelFailed) -> float | None:
        """Return the seconds after which the same vendor is worth another call; None if it is not, or none is left."""
        # A class's own seconds are meant for users; what an instance was given is the vendor's word.
        asked = vars(error).get("retry_after", 0.0)
        if asked is None or self._calls_left <= len(self._untried):  # each of the others is worth one
            return None
        wait = max(asked, self._backoff * (1 + self._jitter()) / 2)
        fits = wait <= self._patience and self._clock() + wait < self._until
        return wait if fits else None
