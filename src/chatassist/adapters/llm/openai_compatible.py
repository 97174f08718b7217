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
    open_vendor,
    sorted_out,
)
from chatassist.adapters.vendor_errors import Kind, Refused
from chatassist.domain.errors import (
    ContextTooLong,
    LlmMisconfigured,
    LlmOverloaded,
    LlmTimeout,
    LlmUnavailable,
    ModelFailed,
)
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk
from chatassist.domain.turns import FinishReason

_PATH = "/chat/completions"
_USAGE_WAIT = 1.0  # seconds after the finish reason in which usage may still come
_CLOSE_WAIT = 0.1  # seconds after [DONE] in which the body may end, so that the connection can be used again
_ERRORS: Mapping[Kind, type[ModelFailed | ContextTooLong]] = {
    Kind.BILLING: LlmUnavailable,
    Kind.TOO_LONG: ContextTooLong,
    Kind.CONFIGURATION: LlmMisconfigured,
    Kind.OVERLOAD: LlmOverloaded,
    Kind.PARAMETER: LlmMisconfigured,
    Kind.FAULT: LlmUnavailable,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What need not be given. `temperature` and `max_output_tokens` are sent only if set.

    `max_body`: bytes of one answer; a thinking model sends about 400 a token. `max_connections`: answers at a time.
    """

    temperature: float | None = None
    max_output_tokens: int | None = None
    max_body: int = 16 * 1024 * 1024
    max_connections: int = 1024


class OpenAiCompatibleChatModel(ChatModel):
    """One vendor, one key, one default model. `idle_timeout`: seconds without any byte, a comment's included."""

    def __init__(
        self, *, base_url: str, api_key: str, model: str, idle_timeout: float, options: Options | None = None
    ) -> None:
        options = options or Options()
        self._model = model
        self._max_body = options.max_body
        transport = HttptoolsTransport(max_connections=options.max_connections)
        http = open_vendor_client(read_timeout=idle_timeout, transport=transport)
        self._vendor = open_vendor(base_url=base_url, api_key=api_key, http=http, path=_PATH)
        self._posts = Posts(self._vendor, transport, _PATH, timeout=http.timeout)
        self._optional: dict[str, object] = {"stream_options": {"include_usage": True}}
        if options.temperature is not None:
            self._optional["temperature"] = options.temperature
        if options.max_output_tokens is not None:
            self._optional["max_tokens"] = options.max_output_tokens

    async def aclose(self) -> None:
        """Close all connections; calls in progress fail."""
        await self._vendor.close()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield the vendor's reply; see ChatModel."""
        model = prompt.model or self._model
        reply = ReplyReader(model=model, max_body=self._max_body)
        try:
            async with aclosing(await self._open(prompt)) as response:
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
            if refused.kind is not Kind.UNSAFE:
                raise _refused(refused) from refused
            last = Chunk(finish_reason=FinishReason.BLOCKED, model=model)
        except FOREIGN as exc:
            raise _translated(exc) from exc
        yield last

    async def _open(self, prompt: Prompt) -> httpx2.Response:
        """Call the vendor; once more without optional fields if it refuses a parameter: older servers do."""
        required = {
            "model": prompt.model or self._model,
            "messages": [{"role": said.role.value, "content": said.content} for said in prompt.utterances],
            "stream": True,
        }
        try:
            return await self._post({**required, **self._optional})
        except Refused as refused:
            if refused.kind is not Kind.PARAMETER:
                raise
        return await self._post(required)

    async def _post(self, body: dict[str, object]) -> httpx2.Response:
        # "replace": a system prompt from a badly encoded environment holds lone surrogates.
        content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        return await self._posts.send(content)


async def _linger(parts: AsyncIterator[bytes], reply: ReplyReader) -> None:
    """Take in what may follow the last text (usage, [DONE], the end of the body); whatever it is, the reply stands."""
    with suppress(TimeoutError, StopAsyncIteration, ModelFailed, httpx2.HTTPError, OSError):
        async with asyncio.timeout(_USAGE_WAIT):
            while not reply.done:
                for _ in reply.feed(await anext(parts)):
                    pass
        async with asyncio.timeout(_CLOSE_WAIT):
            async for _ in parts:
                pass


def _refused(refused: Refused) -> ModelFailed | ContextTooLong:
    error = _ERRORS[refused.kind](str(refused), retry_after=refused.retry_after)
    if refused.kind is Kind.BILLING:
        error.retry_after = None  # paying takes longer than any wait we could name
    return error


def _translated(exc: Exception) -> ModelFailed:
    meaning = sorted_out(exc)
    match meaning:
        case VendorSilent():
            return LlmTimeout(str(meaning))
        case Unsendable():
            return LlmMisconfigured(str(meaning))
        case ConnectionFailed():
            return LlmUnavailable(str(meaning))
