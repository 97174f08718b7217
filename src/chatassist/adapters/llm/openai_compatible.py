"""Chat models behind any OpenAI-compatible `POST …/chat/completions`, always streamed.

The openai client gives connections, authentication and addresses; the body is made and the answer read here, because
its own way costs 3 ms of CPU a call and 230 µs a token. It never retries for us, and never follows a redirect.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import cast

import httpx2

from chatassist.adapters.http import open_vendor_client
from chatassist.adapters.httptools_transport import HttptoolsTransport
from chatassist.adapters.llm.reply_reader import ReplyReader
from chatassist.adapters.openai_client import (
    FOREIGN,
    ConnectionFailed,
    Posts,
    Unsendable,
    VendorSilent,
    sorted_out,
)
from chatassist.adapters.vendor import Access, Vendor
from chatassist.adapters.vendor_errors import Kind, Refused
from chatassist.domain.errors import (
    ContextTooLong,
    LlmKeyRefused,
    LlmMisconfigured,
    LlmOverloaded,
    LlmParameterRefused,
    LlmTimeout,
    LlmUnavailable,
    LlmUnpaid,
    ModelFailed,
)
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk
from chatassist.domain.turns import FinishReason

_PATH = "/chat/completions"
_USAGE_WAIT = 1.0  # seconds after the finish reason in which usage may still come
_CLOSE_WAIT = 0.1  # seconds after [DONE] in which the body may end, so that the connection can be used again
_UNSAFE = (Kind.UNSAFE_INPUT, Kind.UNSAFE_OUTPUT)
_ERRORS: Mapping[Kind, type[ModelFailed | ContextTooLong]] = {
    Kind.AUTH: LlmKeyRefused,
    Kind.CONFIGURATION: LlmMisconfigured,
    Kind.BILLING: LlmUnpaid,
    Kind.RATE: LlmOverloaded,
    Kind.OVERLOAD: LlmOverloaded,
    Kind.TOO_LONG: ContextTooLong,
    Kind.PARAMETER: LlmParameterRefused,
    Kind.FAULT: LlmUnavailable,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What need not be given. `temperature`, `max_output_tokens` and `thinking` are sent only if set.

    `thinking`: whether the model shall think before it answers. `max_body`: bytes of one answer; a thinking model sends
    about 400 a token. `max_connections`: answers at a time.
    """

    temperature: float | None = None
    max_output_tokens: int | None = None
    thinking: bool | None = None
    max_body: int = 16 * 1024 * 1024
    max_connections: int = 1024


class OpenAiCompatibleChatModel(ChatModel):
    """One vendor, one key, one default model. `idle_timeout`: seconds without any byte, a comment's included.

    One reply is one call: what may be tried again, and how, is the matter of those who stand around it.
    """

    def __init__(self, access: Access, *, model: str, idle_timeout: float, options: Options | None = None) -> None:
        options = options or Options()
        self._vendor = access.vendor
        self._model = model
        self._max_body = options.max_body
        self._optional = _optional(access.vendor, options)
        transport = HttptoolsTransport(max_connections=options.max_connections)
        http = open_vendor_client(read_timeout=idle_timeout, transport=transport)
        self._posts = Posts(access, http, transport, _PATH)

    async def aclose(self) -> None:
        """Close all connections; calls in progress fail."""
        await self._posts.vendor.close()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield the vendor's reply; see ChatModel."""
        model = prompt.model or self._model
        reply = ReplyReader(self._vendor, model=model, max_body=self._max_body)
        try:
            async with aclosing(await self._posts.send(self._request(prompt, model))) as response:
                parts = cast("httpx2.AsyncByteStream", response.stream).__aiter__()
                async for part in parts:
                    for chunk in reply.feed(part):
                        yield chunk
                    if reply.over:
                        await _linger(parts, reply)
                        break
            for chunk in reply.end():
                yield chunk
            last = reply.last()
        except Refused as refused:
            if refused.kind not in _UNSAFE:
                raise _ERRORS[refused.kind](str(refused), retry_after=refused.retry_after) from refused
            last = Chunk(finish_reason=FinishReason.BLOCKED, model=model)
        except FOREIGN as exc:
            raise _translated(exc) from exc
        yield last

    def _request(self, prompt: Prompt, model: str) -> bytes:
        # Earlier reasoning is not sent back: see `catalogue` before a vendor wants it.
        body = {
            "model": model,
            "messages": [{"role": said.role.value, "content": said.content} for said in prompt.utterances],
            "stream": True,
            **({} if prompt.bare else self._optional),
        }
        # "replace": a system prompt from a badly encoded environment holds lone surrogates.
        return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def _optional(vendor: Vendor, options: Options) -> Mapping[str, object]:
    """Return what a request holds beside what every vendor needs."""
    body: dict[str, object] = dict(vendor.extra)
    if vendor.counts_usage:
        body["stream_options"] = {"include_usage": True}
    if options.temperature is not None:
        body["temperature"] = min(max(options.temperature, vendor.min_temperature), vendor.max_temperature)
    if options.max_output_tokens is not None and vendor.limit_parameter is not None:
        body[vendor.limit_parameter] = options.max_output_tokens
    if options.thinking is not None:
        body.update((vendor.thinking.on if options.thinking else vendor.thinking.off) or {})
    return body


async def _linger(parts: AsyncIterator[bytes], reply: ReplyReader) -> None:
    """Take in what may follow the last text (usage, [DONE], the end of the body); whatever it is, the reply stands."""
    with suppress(TimeoutError, StopAsyncIteration, ModelFailed, httpx2.HTTPError, OSError):
        if not reply.done:  # nearly always it is, and no clock is set
            async with asyncio.timeout(_USAGE_WAIT):
                while not reply.done:
                    for _ in reply.feed(await anext(parts)):
                        pass
        async with asyncio.timeout(_CLOSE_WAIT):
            async for _ in parts:
                pass


def _translated(exc: Exception) -> ModelFailed:
    meaning = sorted_out(exc)
    match meaning:
        case VendorSilent():
            return LlmTimeout(str(meaning))
        case Unsendable():
            return LlmMisconfigured(str(meaning))
        case ConnectionFailed():
            return LlmUnavailable(str(meaning))
