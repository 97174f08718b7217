"""One HTTP/1.1 connection to an AI vendor, as an asyncio protocol on httptools: one exchange at a time.

It knows nothing of pools. Whatever goes wrong comes out as an exception of httpx2, and its text names no byte of the
vendor's.
"""

import asyncio
import math
import re
import select
from collections.abc import AsyncIterable
from typing import cast

import httptools
import httpx2

_MAX_HEAD = 64 * 1024  # bytes, and one read of the socket, in which neither a head ends nor a part of a body comes
_PIECE = 128 * 1024  # bytes written at a time; more than what a connection buffers, so that progress is seen
_MAX_UNREAD = 256 * 1024  # bytes of a body that nobody has taken yet; then the vendor has to wait
_NO_BODY = (204, 304)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Headers = list[tuple[bytes, bytes]]


class VendorConnection(asyncio.Protocol):
    """What came is kept, and the socket paused, until it is read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._failure: httpx2.TransportError | None = None
        self._news: asyncio.Future[None] | None = None
        self._patience = 0.0  # until when, by the loop's clock, there has to be news
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._begin()
        self._over = True

    def _begin(self) -> None:
        """Forget the exchange before."""
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self._sent = self._headed = self._over = self._framed = self._lasting = False
        self._fruitless = self._unread = 0
        self._parts: list[bytes] = []

    # --- What the pool asks for -------------------------------------------------------------------------------------

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange is complete both ways, and the vendor keeps the connection as far as is known."""
        transport = self._transport
        complete = self._sent and self._over and self._lasting and self._unread <= _MAX_UNREAD
        return complete and transport is not None and not transport.is_closing()

    def has_news(self) -> bool:
        """Ask the kernel: on an idle connection any news is that the vendor hung up, or that it is out of step."""
        transport = self._transport
        if transport is None:
            return True
        descriptor = transport.get_extra_info("socket").fileno()
        if descriptor < 0:
            return True
        if not hasattr(select, "poll"):  # Windows
            return bool(select.select([descriptor], [], [], 0)[0])
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Close the socket at once; whoever reads is told."""
        self._framed = True  # this end is not the vendor's, so it ends no body
        if self._transport is not None:
            self._transport.abort()

    # --- One exchange -----------------------------------------------------------------------------------------------

    async def send(self, head: bytes, body: AsyncIterable[bytes], *, chunked: bool, seconds: float | None) -> None:
        """Send a request; stop where the vendor answers before it is whole. Raises WriteError, WriteTimeout.

        `seconds`: so many may pass while the vendor takes in nothing.
        """
        self._begin()
        held = head  # small parts leave together
        async for part in body:
            held += (b"%x\r\n%b\r\n" % (len(part), part) if part else b"") if chunked else part
            if len(held) >= _PIECE:
                if not await self._write(held, seconds):
                    return
                held = b""
        self._sent = await self._write(held + b"0\r\n\r\n" if chunked else held, seconds)

    async def _write(self, data: bytes, seconds: float | None) -> bool:
        """Write piece by piece, each once there is room for it; tell whether all was wanted."""
        for start in range(0, len(data), _PIECE):
            if self._headed:
                return False
            if self._transport is None or self._transport.is_closing():
                raise httpx2.WriteError("the connection broke while the request was sent") from self._failure
            self._transport.write(data[start : start + _PIECE])  # bytes are not copied where all of them are wanted
            if not self._writable.is_set():
                try:
                    async with asyncio.timeout(seconds):
                        await self._writable.wait()
                except TimeoutError as exc:
                    raise httpx2.WriteTimeout("the vendor takes nothing in") from exc
        return True

    async def head(self, seconds: float | None) -> None:
        """Wait for `status` and `headers`. Raises httpx2.TransportError.

        `seconds`: so many may pass without any byte.
        """
        while not self._headed:
            if self._failure is not None:
                raise self._failure
            await self._wait(seconds)

    async def read(self, seconds: float | None) -> bytes:
        """Return what came of the body since the last call, waiting for it; b"" at its end. Raises as `head` does."""
        while not self._parts:
            if self._over:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._wait(seconds)
        parts, self._parts = self._parts, []
        if self._unread > _MAX_UNREAD and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._unread = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait(self, seconds: float | None) -> None:
        """Wait until anything comes."""
        news = self._news = self._loop.create_future()
        self._be_patient(math.inf if seconds is None else seconds)
        try:
            await news
        finally:
            self._news = None

    def _be_patient(self, seconds: float) -> None:
        """See to it that somebody looks at the clock in time. One timer serves many waits: two each was their price."""
        self._patience = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._patience:
            self._forget_timer()
        if self._timer is None and seconds != math.inf:
            self._timer = self._loop.call_at(self._patience, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        news = self._news
        if news is None or news.done() or self._patience == math.inf:
            return
        if self._loop.time() < self._patience:
            self._timer = self._loop.call_at(self._patience, self._look_at_clock)
        else:
            news.set_exception(httpx2.ReadTimeout("the vendor was silent for too long"))

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: httpx2.TransportError) -> None:
        self._failure = self._failure or error
        self._writable.set()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- What the loop calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; a body without a length ends here."""
        self._forget_timer()
        self._transport = None
        self._lasting = False
        if exc is not None:
            error = httpx2.ReadError(f"the connection to the vendor broke: {type(exc).__name__}")
            error.__cause__ = exc
            return self._fail(error)
        if self._headed and not self._framed:
            self._over = True
        return self._fail(httpx2.RemoteProtocolError("the vendor closed the connection before its answer was whole"))

    def pause_writing(self) -> None:
        """Let `send` wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse; the parser calls the `on_…` below."""
        if self._over:  # between exchanges: a vendor that is out of step
            return self._break("the vendor spoke unasked")
        self._fruitless += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            return self._break("the vendor's answer is no HTTP", exc)
        if self._fruitless > _MAX_HEAD and not self._over:
            return self._break("the head of the vendor's answer is too long")
        if self._unread > _MAX_UNREAD and self._transport is not None:
            self._transport.pause_reading()
        return self._wake()

    def _break(self, what: str, cause: Exception | None = None) -> None:
        """Trust nothing that would follow. An answer that is whole stays so."""
        self._lasting = False
        error = httpx2.RemoteProtocolError(what)
        error.__cause__ = cause
        self._fail(error)
        self.abort()

    # --- What the parser calls --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._over:
            raise ValueError("an answer that nobody asked for")

    def on_status(self, reason: bytes) -> None:
        """Keep the words beside the status, which may come in parts."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what follows a body is of no use."""
        if self._headed:
            return
        self.headers.append((name, value.rstrip(b" \t")))
        lower = name.lower()
        if lower == b"content-length":
            self._framed = True
        elif lower == b"transfer-encoding":
            self._framed = value.lower().rpartition(b",")[2].strip() == b"chunked"

    def on_headers_complete(self) -> None:
        """Note the head, unless another follows (100 Continue, 103 Early Hints)."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers, self.reason, self._framed = [], b"", False
            return
        self.status = status
        self._framed = self._framed or status in _NO_BODY
        self._headed = True
        self._fruitless = 0
        self._writable.set()  # an early answer: the rest of the request is not wanted

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._parts.append(body)
        self._unread += len(body)
        self._fruitless = 0

    def on_message_complete(self) -> None:
        """Note the end; only now does the parser know whether the connection may be used again."""
        if self._headed:
            self._over, self._lasting = True, self._parser.should_keep_alive()


def request_head(request: httpx2.Request) -> tuple[bytes, bool]:
    """Return a request's head, and whether its body goes in chunks. Raises LocalProtocolError: it cannot be sent."""
    if request.method in ("HEAD", "CONNECT"):
        raise httpx2.LocalProtocolError("answers without the body that they announce are not understood here")
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    chunked = False
    for name, value in request.headers.raw:
        lines.append(b"%b: %b" % (name, value))
        chunked = chunked or name.lower() == b"transfer-encoding"
    head = b"\r\n".join((*lines, b"", b""))
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or _CONTROL.search(head):
        raise httpx2.LocalProtocolError("a header of the request holds what no header may")
    return head, chunked
