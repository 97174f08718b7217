"""A bare HTTP/1.1 client connection on httptools: the load generator's, and the floor's way to its vendor."""

import asyncio
from typing import Self, cast

import httptools


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time: `send`, then `read` until it returns nothing."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._news: asyncio.Future[None] | None = None
        self._over = True
        self._lasting = True

    @classmethod
    async def to(cls, port: int) -> Self:
        """Return a connection to a port of this machine."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    @property
    def status(self) -> int:
        """The status of the answer, once `read` has returned."""
        return int(self._parser.get_status_code())

    @property
    def usable(self) -> bool:
        """Whether another exchange may follow."""
        return self._over and self._lasting and self._transport is not None

    def send(self, request: bytes) -> None:
        """Send a whole request. Raises ConnectionError when the peer has gone."""
        if self._transport is None:
            raise ConnectionResetError("the peer closed the connection")
        self._over = False
        self._transport.write(request)

    async def read(self) -> bytes:
        """Return what came of the body since the last call, waiting for it; b"" after its end."""
        while not self._parts:
            if self._over:
                return b""
            if self._transport is None:
                raise ConnectionResetError("the peer closed the connection amid an answer")
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def exchange(self, request: bytes) -> bytes:
        """Send a request and return the whole body of its answer."""
        self.send(request)
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Parse; the parser calls the `on_…` below."""
        self._parser.feed_data(data)
        self._wake()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Note the end; only now does the parser know whether the connection may be used again."""
        self._over, self._lasting = True, self._parser.should_keep_alive()

    def _wake(self) -> None:
        waiter = self._news
        if waiter is not None and not waiter.done() and (self._parts or self._over or self._transport is None):
            waiter.set_result(None)
