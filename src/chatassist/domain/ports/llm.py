"""A chat model: a prompt goes in, pieces of text come out."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from chatassist.domain.model import FinishReason, Usage


class Role(StrEnum):
    """Who speaks in a prompt."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One message of a prompt."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given: at most one system message first, then user and assistant in turns, the user last."""

    utterances: Sequence[Utterance]
    model: str | None = None
    """A model the user chose; None is the operator's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a reply. The last one has a finish reason; model and usage come with any, the latest counts."""

    text: str = ""
    finish_reason: FinishReason | None = None
    model: str | None = None
    usage: Usage | None = None


class ChatModel(ABC):
    """Produces replies. Wrappers (retry, failover, limits) are ChatModels around ChatModels."""

    @abstractmethod
    def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield the reply as it comes; text is always whole characters, the last chunk alone has a finish reason.

        Closing the generator or cancelling its reader cancels the vendor call. No total deadline: that is the
        caller's. Ends only after a finish reason; whatever else happens raises a ModelFailed or ContextTooLong.
        A vendor that refuses the content answers with finish reason `blocked`.
        """
