"""One attempt at a reply while it is being made: what the model said so far, and the ways to cut it short."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from chatassist.domain.errors import ChatAssistError, LlmTimeout, ReplyInterrupted
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.ports.replies import Delta, Event, Replace, Thinking
from chatassist.domain.prompt import estimate_usage
from chatassist.domain.replies.title_words import EXCERPT_CHARS
from chatassist.domain.turns import End, FinishReason, Saved, Status, Turn, Usage
from chatassist.domain.usage import Meter

MODEL_CHARS = 128


@dataclass(slots=True, eq=False)
class Production:
    """Deadline, interruption and stop are one way out: the scope's time is over. `seq`: the last event's number."""

    turn: Turn
    prompt: Prompt
    meter: Meter
    scope: asyncio.Timeout
    max_chars: int
    seq: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the end is stored, as far as it can be, and told."""
    finish: FinishReason | None = None
    ending: bool = False
    """Whether the model has finished or was cut short: nothing is added any more."""
    saved_seq: int = 0
    on_excerpt: Callable[[], None] | None = None
    """Called once, as soon as there is enough text to know what it is about."""
    _text: list[str] = field(default_factory=list)
    _thinking: list[str] = field(default_factory=list)
    _text_chars: int = 0
    _thinking_chars: int = 0
    _model: str | None = None
    _usage: Usage | None = None
    _cause: type[ChatAssistError] | None = LlmTimeout

    def __post_init__(self) -> None:
        self.saved_seq = self.seq

    @property
    def text(self) -> str:
        """All text so far."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        return self._text[0] if self._text else ""

    @property
    def thinking(self) -> str:
        """All thinking so far."""
        return "".join(self._thinking)

    def take(self, chunk: Chunk) -> list[Event]:
        """Keep what a chunk brings; return the events that tell of it, cut where the reply is full."""
        self._model = (chunk.model or "")[:MODEL_CHARS] or self._model
        self._usage = chunk.usage or self._usage
        self.finish = chunk.finish_reason
        events: list[Event] = []
        if thought := chunk.thinking[: self.max_chars - self._thinking_chars]:
            self._thinking.append(thought)
            self._thinking_chars += len(thought)
            events.append(Thinking(thought))
        if said := chunk.text[: self.max_chars - self._text_chars]:
            self._text.append(said)
            self._text_chars += len(said)
            events.append(Delta(said))
            if (call := self.on_excerpt) and self._text_chars >= EXCERPT_CHARS:
                self.on_excerpt = None
                call()
        if len(said) < len(chunk.text) and self.finish is not FinishReason.BLOCKED:
            self.finish = FinishReason.LENGTH
        return events

    def block(self, refusal: str) -> Event:
        """Withdraw what was said and thought; return the event that tells what is said instead."""
        self._usage = self._usage or estimate_usage(self.prompt, self.text, self.thinking)  # it was made all the same
        self._text, self._thinking = [refusal], []
        return Replace(refusal, "moderation")

    def stop(self) -> None:
        """End it as its user wishes, now; without effect once it is ending."""
        self._cut(None)

    def interrupt(self) -> None:
        """End it as interrupted, now; without effect once it is ending."""
        self._cut(ReplyInterrupted)

    def cut_short(self, at: datetime) -> End:
        """Return the end of what was stopped or interrupted, or took too long."""
        if self._cause is None:
            return self._with_texts(End.stop(at))
        return self.failed(self._cause(), at)

    def failed(self, error: ChatAssistError, at: datetime) -> End:
        """Return the end of what failed: the text so far was shown, so it is kept."""
        return self._with_texts(End.failure(error, at))

    def completed(self, at: datetime) -> End:
        """Return the end of what the model finished."""
        end = End(status=Status.COMPLETE, finish_reason=self.finish or FinishReason.STOP, content="", at=at)
        return self._with_texts(end)

    def so_far(self) -> Saved:
        """Return how far it has come."""
        reply = self.turn.reply
        thinking = self.thinking
        return Saved(reply_id=reply.id, attempt=reply.attempt, seq=self.seq, content=self.text, thinking=thinking)

    def _with_texts(self, end: End) -> End:
        text, thinking, usage = self.text, self.thinking, self._usage
        if usage is None and (text or thinking or end.status is Status.COMPLETE):
            usage = estimate_usage(self.prompt, text, thinking)
        return replace(end, content=text, thinking=thinking, model=self._model, usage=usage)

    def _cut(self, cause: type[ChatAssistError] | None) -> None:
        if not self.ending and not self.scope.expired():
            self._cause = cause
            self.scope.reschedule(0)
