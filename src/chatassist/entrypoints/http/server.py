"""Runs the app under uvicorn, and ends it so that no reply is lost: replies drain while the listener is still open."""

import asyncio
import socket
import uuid
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chatassist.entrypoints.http.envelope import MalformedHttp, refuse
from chatassist.settings import HttpSettings

LAST_SECONDS = 1
"""How long answers may take to leave after the replies have drained."""
IDLE_SECONDS = 75
"""How long a connection may wait for its next request: longer than proxies keep theirs (nginx: 60), so that none sends
one on a connection that is being closed."""
UNREAD_SECONDS = 60
"""How long a client may leave what he was sent unacknowledged or unread before the system hangs up on him."""


class EnvelopeProtocol(HttpToolsProtocol):
    """uvicorn's protocol, answering what is no HTTP in our envelope too."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, and hang up."""
        request_id = uuid.uuid4().hex
        headers = {"X-Request-Id": request_id, "Cache-Control": "no-store", "Connection": "close"}
        answer = refuse(MalformedHttp(), request_id, headers)
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(answer.body)))
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """On SIGTERM: not ready and no new sends at once, replies get their time, and only then the listener closes.

    Draining in the lifespan would be circular: it waits for answers that wait for the drain.
    """

    def __init__(self, config: uvicorn.Config, *, drain_seconds: float, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say where."""
        await super().startup(sockets)
        if self.started:
            for server in self.servers:
                for listener in server.sockets:
                    _limit_patience(listener)
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_started(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop; a second Ctrl+C cuts the draining short."""
        services = self.lifespan.state["services"]
        draining = asyncio.create_task(services.drain(self._drain_seconds))
        while not draining.done() and not self.force_exit:
            await asyncio.wait({draining}, timeout=0.1)
        if not draining.done():
            await services.drain(0)
        await super().shutdown(sockets)


def _limit_patience(listener: Any) -> None:
    """Let connections end whose client has vanished or does not read: they inherit it from their listener.

    What he follows costs bounded memory anyway; this frees his connection. Where there is no such option, the system's
    own patience of some minutes has to do.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)


def new_server(app: FastAPI, http: HttpSettings, started: Callable[[str], None]) -> DrainingServer:
    """Return a server for the app; `started` is told the base address once connections are accepted."""
    config = uvicorn.Config(
        app,
        host=http.host,
        port=http.port,
        http=EnvelopeProtocol,
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
        backlog=2048,
    )
    return DrainingServer(config, drain_seconds=http.drain_seconds, started=started)
