"""The openai client as every vendor's adapter wants it: no retries, no redirects, no foreign settings, bounded answers.

What it and its HTTP client raise is sorted here, once; which errors of the domain that makes is each adapter's matter.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from functools import cached_property, partial

import httpx2
import openai

from chatassist.adapters.vendor import Access, Auth
from chatassist.adapters.vendor_errors import Kind, Refusals, Refused

_REFUSAL_WAIT = 2.0  # seconds for the body of a refusal; its status is known
_REFUSAL_BYTES = 64 * 1024

# All that the two libraries raise: openai's family; httpx2's, which has no common root (its StreamError is for misuse
# alone); UnicodeEncodeError for a key that fits no header; and OSError, for what a transport lets through unmapped
# (httpx2's own: ssl.SSLError, pydantic/httpx2#854).
FOREIGN = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError, OSError)
_UNSENDABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL, UnicodeEncodeError)


class VendorSilent(Exception):
    """The vendor sent nothing for too long."""


class Unsendable(Exception):
    """The request cannot be sent at all: the address or the key is malformed."""


class ConnectionFailed(Exception):
    """The connection could not be made, or broke."""


def open_vendor(access: Access, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    """Return a client over `http` that shows the key as the vendor wants it, and raises Refused for what is no success.

    Without a key none is shown. Query parameters of the vendor's go with every request.
    """
    shown = _shown(access)
    http.event_hooks = {
        "request": [] if "Authorization" in shown else [_without_bearer],
        "response": [partial(_raise_refusal, access.vendor.refusals)],
    }
    vendor = openai.AsyncOpenAI(
        base_url=access.base_url,
        api_key=access.api_key or "none",  # the client cannot do without
        http_client=http,
        max_retries=0,
        # Uncompressed: what a compressed body unpacks to has no bound.
        default_headers={**shown, "Accept-Encoding": "identity"},
        default_query=access.query,
    )
    vendor.organization = vendor.project = None  # the environment may hold them, for OpenAI itself
    return vendor


def _shown(access: Access) -> Mapping[str, str]:
    if not access.api_key:
        return {}
    if access.vendor.auth is Auth.API_KEY:
        return {"api-key": access.api_key}
    return {"Authorization": f"Bearer {access.api_key}"}


async def _without_bearer(request: httpx2.Request) -> None:
    """Take away what the client insists on."""
    request.headers.pop("Authorization", None)


class Posts:
    """Sends JSON to one path of a vendor. Address, key, query and headers are the client's; the request is made here.

    Its own `post` builds options, models and a retry loop for each request, which was a tenth of a whole turn's CPU;
    and its HTTP client's `send` looks for redirects and cookies, and wraps every part of the body in two generators.
    """

    def __init__(
        self, access: Access, http: httpx2.AsyncClient, transport: httpx2.AsyncBaseTransport, path: str
    ) -> None:
        self.vendor = open_vendor(access, http)
        """The client."""
        self._refusals = access.vendor.refusals
        self._query = access.query
        self._transport = transport
        self._path = path
        self._extensions = {"timeout": http.timeout.as_dict()}

    async def send(self, content: bytes) -> httpx2.Response:
        """Return an answer whose body is still to come; who gets it closes it. Raises Refused and what is FOREIGN."""
        url, headers = self._fixed
        headers = [*headers, (b"Content-Length", b"%d" % len(content))]
        body = httpx2.ByteStream(content)
        request = httpx2.Request("POST", url, headers=headers, stream=body, extensions=self._extensions)
        response = await self._transport.handle_async_request(request)
        try:
            await _raise_refusal(self._refusals, response)
        except BaseException:
            await response.aclose()
            raise
        return response

    @cached_property
    def _fixed(self) -> tuple[httpx2.URL, list[tuple[bytes, bytes]]]:
        """What is the same each time. Not made before the first request: an unusable key is no reason not to start."""
        url = httpx2.URL(f"{self.vendor.base_url}".rstrip("/") + self._path)
        if self._query:
            url = url.copy_merge_params(self._query)
        given = {name: value for name, value in self.vendor.default_headers.items() if isinstance(value, str)}
        return url, [(b"Host", url.netloc), *httpx2.Headers(given).raw]


def sorted_out(exc: Exception) -> VendorSilent | Unsendable | ConnectionFailed:
    """Return what one of `FOREIGN` means; its text is ours and names no body, key or address."""
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) else exc
    if isinstance(cause, httpx2.TimeoutException):
        return VendorSilent("the vendor was silent for too long")
    if isinstance(cause, _UNSENDABLE):
        return Unsendable(f"the vendor's address or key cannot be sent: {type(cause).__name__}")
    return ConnectionFailed(f"the connection to the vendor failed: {type(cause).__name__}")


async def read_at_most(parts: AsyncGenerator[bytes, None], max_bytes: int) -> bytes | None:
    """Return a body, or None if it is longer."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > max_bytes:
            return None
    return bytes(body)


async def _raise_refusal(refusals: Refusals, response: httpx2.Response) -> None:
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
    raise refusals.of(response.status_code, bytes(body[:_REFUSAL_BYTES]), response.headers)
