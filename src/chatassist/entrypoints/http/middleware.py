"""Around the app, as plain ASGI: the request's id, the body's cap, one log line, and an envelope for any defect."""

import asyncio
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatassist.domain.errors import Internal, ShuttingDown
from chatassist.entrypoints.http.envelope import refuse

log = logging.getLogger(__name__)

DISCARD_SECONDS = 5.0
SMALL = 64 * 1024
"""Bytes of a body that are let go by without a word if nobody wants them."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")


class Frame:
    """The outermost layer: nothing passes it without a request id, and no exception at all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = _given_id(scope) or secrets.token_hex(16)
        scope["state"]["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started, status = time.perf_counter(), 0

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, framed)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not status:
                await refuse(ShuttingDown(), request_id)(scope, receive, framed)
        except Exception:
            log.exception("unhandled")
            if not status:
                await refuse(Internal(), request_id)(scope, receive, framed)
        finally:
            _log_answer(scope, status, time.perf_counter() - started)


class BodyLimit:
    """Refuses bodies over a cap: at the head where a length is declared, else as soon as they exceed it.

    `larger`: caps of single paths. Whoever is answered while much of his body is still to come gets the answer, some
    time to stop, and no other request on that connection.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing of a body that is declared too long is kept."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = _Body(scope, receive, self._larger.get(scope["path"], self._max_bytes))
        if not body.is_coming:  # and will not be: it is declared, and short
            return await self._app(scope, body.receive, send)

        async def patient(message: Message) -> None:
            if message["type"] == "http.response.start" and body.is_coming:
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if not (last and body.is_coming):
                return await send(message)
            await send({**message, "more_body": True})
            await _discard(receive)
            return await send({"type": "http.response.body"})

        return await self._app(scope, body.receive, patient)


class _Body:
    """One request's body on its way in."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        self._receive = receive
        self._left = max_bytes
        self._too_large = not declared.isdigit() or int(declared) > max_bytes
        self.is_coming = self._too_large or int(declared) > SMALL or b"transfer-encoding" in headers

    async def receive(self) -> Message:
        """Take in the next part. Raises HTTPException 413, now and from now on, once it is more than the cap."""
        message: Message = {} if self._too_large else await self._receive()
        self._left -= len(message.get("body", b""))
        if self._too_large or self._left < 0:
            self._too_large = self.is_coming = True
            raise HTTPException(413)
        self.is_coming = self.is_coming and message.get("more_body", False)
        return message


async def _discard(receive: Receive) -> None:
    """Take what is still coming, for a while: whoever is cut off while sending never reads the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await receive()).get("more_body"):
                pass


class ForwardingNotice:
    """Says once that a peer who is not a trusted proxy sends forwarding headers: they are ignored."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app = app
        self._trusted = [ipaddress.ip_network(part, strict=False) for part in trusted]
        self._said = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not self._said and self._is_untrusted(scope):
            self._said = True
            log.warning("forwarding headers from an untrusted peer are ignored: see CHATASSIST_HTTP__TRUSTED_PROXIES")
        await self._app(scope, receive, send)

    def _is_untrusted(self, scope: Scope) -> bool:
        if not any(name in (b"x-forwarded-for", b"forwarded") for name, _ in scope["headers"]):
            return False
        try:
            peer = ipaddress.ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        return not any(peer in network for network in self._trusted)


class StrictJsonRoute(APIRoute):
    """A route whose JSON is JSON: no NaN or Infinity, and whatever breaks the parser is the sender's fault."""

    def get_route_handler(self) -> Any:
        """Return FastAPI's handler, given a request that reads JSON strictly."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Any:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


class StrictRequest(Request):
    """A request whose JSON is JSON."""

    async def json(self) -> Any:
        """Return what the body says. Raises JSONDecodeError."""
        body = await self.body()
        try:
            return json.loads(body.decode(), parse_constant=_no_constant)  # bytes may be UTF-16 to it
        except (ValueError, RecursionError) as exc:
            raise json.JSONDecodeError("not JSON", "", 0) from exc


def _no_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else None
    return None


def _log_answer(scope: Scope, status: int, seconds: float) -> None:
    """Log one line; the route's template stands for the path, which may hold anything."""
    route = scope.get("route")
    log.info(
        "answered",
        extra={
            "method": scope["method"] if route else "-",
            "route": getattr(route, "path", "-"),
            "status": status,
            "ms": round(seconds * 1000, 1),
        },
    )
