"""Chat models behind any OpenAI-compatible `POST …/chat/completions`, always streamed.

The openai client gives connections, authentication and addresses; the body is made and the answer read here, because
its own way costs 3 ms of CPU a call and 230 µs a token. It never retries for us, and never follows a redirect.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import cast

import httpx2
import openai

from chatassist.adapters.http import open_client
from chatassist.adapters.llm.reply_reader import ReplyReader
from chatassist.adapters.llm.vendor_errors import Kind, Refused, refusal
from chatassist.domain.errors import LlmMisconfigured, LlmTimeout, LlmUnavailable, ModelFailed
from chatassist.domain.model import FinishReason, Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk

_USAGE_WAIT = 1.0  # seconds after the finish reason in which usage may still come
_CLOSE_WAIT = 0.1  # seconds after [DONE] in which the body may end, so that the connection can be used again
_REFUSAL_WAIT = 2.0  # seconds for the body of a refusal; its status is known
_REFUSAL_BYTES = 64 * 1024

# All that the two libraries raise: openai's family; httpx2's, which has no common root (its StreamError is for misuse
# alone); UnicodeEncodeError for a key that fits no header; and OSError, for what anyio lets through unmapped
# (ssl.SSLError, pydantic/httpx2#854). Broken JSON and bad UTF-8 end inside ReplyReader.
_FOREIGN = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError, OSError)
_UNSENDABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL, UnicodeEncodeError)


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
        http = open_client(read_timeout=idle_timeout, max_connections=options.max_connections)
        http.event_hooks = {"response": [_raise_refusal]}
        self._vendor = _vendor(base_url, api_key, http)
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
            response = await self._open(prompt)
            async with aclosing(response), aclosing(response.aiter_raw()) as parts:
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
                raise refused.as_error() from refused
            last = Chunk(finish_reason=FinishReason.BLOCKED, model=model)
        except _FOREIGN as exc:
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
        response = await self._vendor.post(
            "/chat/completions",
            content=content,
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        return cast("httpx2.Response", response)  # `cast_to` wins over `stream_cls`, but the annotations do not know


def _vendor(base_url: str, api_key: str, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    """Return the client, kept from mixing in what the environment holds for OpenAI itself."""
    key = api_key or "none"  # local servers need none, but the client does
    vendor = openai.AsyncOpenAI(
        base_url=base_url.strip().rstrip("/").removesuffix("/chat/completions"),  # pasted whole, now and then
        api_key=key,
        http_client=http,
        max_retries=0,
        # Uncompressed: what a compressed body unpacks to has no bound.
        default_headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"},
    )
    vendor.organization = vendor.project = None
    return vendor


async def _raise_refusal(response: httpx2.Response) -> None:
    """Turn an answer that is no success into Refused. A hook, since the client itself would read an endless body."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Refused(Kind.FAULT, status=response.status_code)
    if response.is_success:
        return
    body = bytearray()
    with suppress(TimeoutError, httpx2.HTTPError, OSError):
        async with asyncio.timeout(_REFUSAL_WAIT), aclosing(response.aiter_raw()) as parts:
            async for part in parts:
                body += part
                if len(body) > _REFUSAL_BYTES:
                    break
    raise refusal(response.status_code, bytes(body[:_REFUSAL_BYTES]), response.headers)


async def _linger(parts: AsyncGenerator[bytes, None], reply: ReplyReader) -> None:
    """Take in what may follow the last text (usage, [DONE], the end of the body); whatever it is, the reply stands."""
    with suppress(TimeoutError, StopAsyncIteration, ModelFailed, httpx2.HTTPError, OSError):
        async with asyncio.timeout(_USAGE_WAIT):
            while not reply.done:
                for _ in reply.feed(await anext(parts)):
                    pass
        async with asyncio.timeout(_CLOSE_WAIT):
            async for _ in parts:
                pass


def _translated(exc: Exception) -> ModelFailed:
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) else exc
    if isinstance(cause, httpx2.TimeoutException):
        return LlmTimeout("the vendor was silent for too long")
    if isinstance(cause, _UNSENDABLE):
        return LlmMisconfigured(f"the vendor's address or key cannot be sent: {type(cause).__name__}")
    return LlmUnavailable(f"the connection to the vendor failed: {type(cause).__name__}")
