"""The way to AI vendors: httpx2's transport, made of httptools and a pool of asyncio connections.

Why not httpx2's own: parsing in Python and a pool that walks over all of its connections at each request were a quarter
of a blocking turn's CPU at 32 connections, and more with 256 open calls (see `benchmarks/`).

HTTP/1.1, GET and POST alike; no proxies, no HEAD, no CONNECT. A request is sent once: where a vendor hung up on an idle
connection another is used, but nothing that was written is ever repeated, since it may have been acted upon (and paid).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import httpx2

from chatassist.adapters.dialling import dial
from chatassist.adapters.httptools_connection import VendorConnection, request_head
from chatassist.adapters.tls import trusted

_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Idle:
    connection: VendorConnection
    until: float  # of the loop's clock


class HttptoolsTransport(httpx2.AsyncBaseTransport):
    """Bounded: `max_connections` exchanges at a time, others queue; what is idle closes after `idle_seconds`."""

    def __init__(self, *, max_connections: int, idle_seconds: float = 30.0) -> None:
        self._slots = asyncio.Semaphore(max_connections)
        self._idle_seconds = idle_seconds
        self._idle: dict[Origin, deque[_Idle]] = {}
        self._open: set[VendorConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._tls = trusted()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return the head of its answer. Raises httpx2.TransportError."""
        origin = _origin(request.url)
        head, chunked = request_head(request)
        timeouts = request.extensions.get("timeout", {})
        await self._take_slot(timeouts.get("pool"))
        connection: VendorConnection | None = None
        try:
            connection = self._youngest(origin) or await self._connect(origin, timeouts.get("connect"))
            with suppress(httpx2.WriteError):  # before it hung up the vendor may have said why
                body = cast("httpx2.AsyncByteStream", request.stream)  # AsyncClient sees to it
                await connection.send(head, body, chunked=chunked, seconds=timeouts.get("write"))
            await connection.head(timeouts.get("read"))
        except BaseException:
            self._drop(connection)
            raise
        return httpx2.Response(
            connection.status,
            headers=connection.headers,
            stream=_Body(self, origin, connection, timeouts.get("read")),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": connection.reason},
        )

    async def aclose(self) -> None:
        """Close every connection; calls in progress fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        for connection in self._open:
            connection.abort()
        self._open.clear()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    async def _take_slot(self, seconds: float | None) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError as exc:
            raise httpx2.PoolTimeout("too many calls to the vendor at a time") from exc

    def _youngest(self, origin: Origin) -> VendorConnection | None:
        """Take the idle connection that was used last: the others grow old, and go."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop().connection
            if connection.is_reusable and not connection.has_news():
                return connection
            self._forget(connection)
        return None

    async def _connect(self, origin: Origin, seconds: float | None) -> VendorConnection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                socket = await dial(host, port)
                try:
                    _, connection = await loop.create_connection(
                        VendorConnection,
                        sock=socket,
                        ssl=self._tls if scheme == "https" else None,
                        server_hostname=host if scheme == "https" else None,
                    )
                except BaseException:
                    socket.close()
                    raise
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout("the vendor cannot be reached in time") from exc
        except UnicodeError as exc:
            raise httpx2.LocalProtocolError("the vendor's address holds no host's name") from exc
        except OSError as exc:
            raise httpx2.ConnectError(f"the vendor cannot be reached: {type(exc).__name__}") from exc
        if self._closed:
            connection.abort()
            raise httpx2.ConnectError("the client was closed")
        self._open.add(connection)
        return connection

    def give_back(self, origin: Origin, connection: VendorConnection) -> None:
        """Keep a connection for the next exchange if it can carry one, else close it at once; free its slot."""
        if self._closed or not connection.is_reusable:
            self._drop(connection)
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(origin, deque()).append(_Idle(connection, loop.time() + self._idle_seconds))
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._idle_seconds, self._sweep)
        self._slots.release()

    def _drop(self, connection: VendorConnection | None) -> None:
        if connection is not None:
            self._forget(connection)
        self._slots.release()

    def _forget(self, connection: VendorConnection) -> None:
        self._open.discard(connection)
        connection.abort()

    def _sweep(self) -> None:
        """Close what was idle for too long; the oldest are in front."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for idle in self._idle.values():
            while idle and (idle[0].until <= now or not idle[0].connection.is_reusable):
                self._forget(idle.popleft().connection)
        oldest = min((idle[0].until for idle in self._idle.values() if idle), default=None)
        self._sweeper = None if oldest is None else loop.call_at(oldest, self._sweep)


class _Body(httpx2.AsyncByteStream, AsyncIterator[bytes]):
    """An answer's body; closing it before its end closes the socket."""

    def __init__(
        self, transport: HttptoolsTransport, origin: Origin, connection: VendorConnection, seconds: float | None
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection: VendorConnection | None = connection
        self._seconds = seconds

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next part; no generator, since this is run for every word of every reply."""
        if self._connection is None or not (part := await self._connection.read(self._seconds)):
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Give the connection back; again does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.give_back(self._origin, connection)


def _origin(url: httpx2.URL) -> Origin:
    port = url.port or _PORTS.get(url.scheme)
    if port is None or not url.host:
        raise httpx2.UnsupportedProtocol("the vendor's address is no http:// or https:// address")
    return url.scheme, url.raw_host.decode("ascii").strip("[]"), port
