"""A chat model: a prompt goes in, pieces of text come out."""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from chatassist.domain.model import Prompt
from chatassist.domain.turns import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a reply. The last one has a finish reason; model and usage come with any, the latest counts.

    `thinking`: the model's reasoning, which is never part of the text.
    """

    text: str = ""
    thinking: str = ""
    finish_reason: FinishReason | None = None
    model: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A model that users may name, by its id, and what it is called. `default`: it answers whoever names none."""

    model: str
    name: str
    default: bool = False


class ChatModel(ABC):
    """Produces replies. Wrappers (retry, failover, limits) are ChatModels around ChatModels."""

    @abstractmethod
    def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield the reply as it comes; text is always whole characters, the last chunk alone has a finish reason.

        Closing the generator or cancelling its reader cancels the vendor call. No total deadline: that is the
        caller's. Ends only after a finish reason; whatever else happens raises a ModelFailed or ContextTooLong.
        A vendor that refuses the content answers with finish reason `blocked`. Reasoning comes as thinking alone.
        """

    def room(self, model: str | None) -> float:
        """Return how many more prompts for this model would be taken now, if only to wait; most have room for all."""
        return math.inf
