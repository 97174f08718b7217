"""A vendor's answer to our chunks: reads what came, tolerates what vendors do, and says how the reply ended.

Pure: bytes go in, chunks come out. Knows no connection and no clock.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeGuard

from chatassist.adapters.clean_text import CleanText
from chatassist.adapters.llm.event_stream import EventStream
from chatassist.adapters.llm.inline_thinking import InlineThinking
from chatassist.adapters.vendor import Vendor
from chatassist.adapters.vendor_errors import Kind
from chatassist.domain.errors import LlmUnavailable
from chatassist.domain.model import is_clean
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.turns import FinishReason, Usage

_MAX_EVENT = 1024 * 1024  # bytes; also of an answer that is one document
_MAX_TOKENS = 2**31 - 1  # beyond it a count is nonsense, and no column holds it
_MAX_MODEL_CHARS = 128

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.STOP,
    "function_call": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,  # Zhipu
    "content_filter": FinishReason.BLOCKED,
    "sensitive": FinishReason.BLOCKED,  # Zhipu, Hunyuan
}
_FAILURES = frozenset({"error", "network_error", "insufficient_system_resource"})  # OpenRouter, Zhipu, DeepSeek
_UNFINISHED = frozenset({"", "null"})  # what some write instead of null
_UNSAFE = (Kind.UNSAFE_INPUT, Kind.UNSAFE_OUTPUT)


class ReplyReader:
    """Reads one answer of a vendor. `model`: the one asked for; `max_body`: bytes after which it counts as endless."""

    def __init__(self, vendor: Vendor, *, model: str, max_body: int) -> None:
        self._refusals = vendor.refusals
        self._flags = vendor.flags.keys()
        self._usage_in = vendor.usage_in
        self._fields = vendor.thinking.fields
        self._room = max_body
        self._events = EventStream(max_event=min(_MAX_EVENT, max_body))
        self._text = CleanText()
        self._inline = InlineThinking()
        self._thinking = CleanText()
        self._spoken = False
        self._thought = False
        self._finish: FinishReason | None = None
        self._broken = False
        self._model = model
        self._usage: Usage | None = None
        self.done = False
        """Whether the vendor said that nothing follows."""

    @property
    def over(self) -> bool:
        """Whether no more text can come; usage may."""
        return self.done or self._broken or self._finish is not None

    def feed(self, part: bytes) -> Iterator[Chunk]:
        """Yield the text that `part` completes. Raises Refused, LlmUnavailable."""
        self._room -= len(part)
        if self._room < 0:
            msg = "the vendor's answer does not end"
            raise LlmUnavailable(msg)
        return self._chunks(self._events.feed(part))

    def end(self) -> Iterator[Chunk]:
        """Yield the text that the body's end completes. Raises Refused, LlmUnavailable."""
        return self._chunks(self._events.end())

    def last(self) -> Chunk:
        """Return the chunk with the finish reason. Raises LlmUnavailable if the vendor did not finish, or said nothing.

        What was cut before its first word, or blocked, may be without text.
        """
        text, thinking = map("".join, zip(self._apart(self._text.end()), self._inline.end(), strict=True))
        spoken = self._spoken or bool(text)
        finish = self._finish
        if finish is None and self.done and spoken and not self._broken:
            finish = FinishReason.STOP  # Ollama sometimes leaves it null
        if finish is None:
            msg = "the vendor broke off its answer" if spoken else "the vendor's answer holds no reply"
            raise LlmUnavailable(msg)
        if finish is FinishReason.STOP and not spoken:
            msg = "the model answered nothing"
            raise LlmUnavailable(msg)
        return Chunk(text=text, thinking=thinking, finish_reason=finish, model=self._model, usage=self._usage)

    def _chunks(self, events: Iterator[bytes]) -> Iterator[Chunk]:
        for event in events:
            for document in self._documents(event):
                text, thinking = self._read(document)
                if text or thinking:
                    yield Chunk(text=text, thinking=thinking, model=self._model)

    def _documents(self, event: bytes) -> Iterable[object]:
        if event.strip() == b"[DONE]":
            self.done = True
            return ()
        try:
            return (json.loads(event.decode("utf-8", "surrogatepass")),)
        except (ValueError, RecursionError) as exc:  # broken JSON, broken UTF-8, endless digits or brackets
            if b"\n" in event:  # servers that end an event with one newline instead of two
                return chain.from_iterable(map(self._documents, event.split(b"\n")))
            if not self.over and event.strip():
                msg = "the vendor's answer is not JSON"
                raise LlmUnavailable(msg) from exc
            return ()

    def _read(self, document: object) -> tuple[str, str]:
        """Return what an event brings: text, and thinking."""
        if not isinstance(document, dict):
            return "", ""
        choices = document.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None  # empty with usage, and from Azure
        self._raise_refusal(document, choice)
        self._note(document, choice)
        return self._speak(choice) if isinstance(choice, dict) and not self.over else ("", "")

    def _raise_refusal(self, document: dict[str, object], choice: object) -> None:
        """Raise Refused where an event is or holds one; after the last text only if that has to be withdrawn."""
        refused = self._refusals.within(document)
        if self._flags:
            for holder in (document, choice):
                if isinstance(holder, dict) and not self._flags.isdisjoint(holder):
                    refused = refused or self._refusals.flagged(holder)
        if refused is not None and (refused.kind in _UNSAFE or not self.over):
            raise refused

    def _speak(self, choice: dict[str, object]) -> tuple[str, str]:
        said, whole = choice.get("delta"), choice.get("message")
        if not isinstance(said, dict) and isinstance(whole, dict):
            # A whole completion: in place of a stream, or (MiniMax) once more at its end.
            said, self.done = None if self._spoken or self._thought else whole, True
        text = thinking = ""
        if isinstance(said, dict):
            content = said.get("content")
            thinking = self._thoughts(said)
            if isinstance(content, str) and content:
                text, inline = self._apart(self._text.feed(content))
                thinking += inline
            self._thought = self._thought or bool(thinking)
        self._end(choice.get("finish_reason"))
        return text, thinking

    def _apart(self, piece: str) -> tuple[str, str]:
        """Return what of a piece is text, and what is inline thinking. Stray blanks before any text are neither."""
        if self._spoken:
            return piece, ""
        text, thinking = self._inline.feed(piece)
        self._spoken = self._inline.over
        return text, thinking

    def _thoughts(self, said: dict[str, object]) -> str:
        for field in self._fields:
            if thought := said.get(field):
                return self._thinking.feed(_in_words(thought))  # some send the same in two
        return ""

    def _end(self, reason: object) -> None:
        if not isinstance(reason, str) or reason in _UNFINISHED:
            return
        if reason in _FAILURES or (reason not in _FINISH_REASONS and not self._spoken):
            self._broken = True
        else:
            self._finish = _FINISH_REASONS.get(reason, FinishReason.STOP)

    def _note(self, document: dict[str, object], choice: object) -> None:
        """Keep model and usage; counts are cumulative with several vendors, so the last one holds."""
        model = document.get("model")
        if model != self._model and isinstance(model, str) and 0 < len(model) <= _MAX_MODEL_CHARS and is_clean(model):
            self._model = model
        if counts := document.get("usage"):
            self._usage = _usage(counts) or self._usage
        for name in self._usage_in:
            holder = choice if name == "choices" else document.get(name)
            if isinstance(holder, dict) and (counts := holder.get("usage")):
                self._usage = _usage(counts) or self._usage


def _in_words(thought: object) -> str:
    """Return the words of a thought: OpenRouter and MiniMax make lists of parts, some of which are encrypted."""
    if isinstance(thought, str):
        return thought
    parts = [part for part in thought if isinstance(part, dict)] if isinstance(thought, list) else []
    found = (part.get("text") or part.get("summary") for part in parts)
    return "".join(words for words in found if isinstance(words, str))


def _usage(counts: object) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    given, made = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if _is_count(given) and _is_count(made) and (given or made):  # servers that do not count send zeros
        return Usage(input_tokens=given, output_tokens=made)
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS
