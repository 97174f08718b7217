"""Puts the HTTP door together. It is given a way to open the services and never learns how they are made."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from chatassist import __version__
from chatassist.domain.services import Services
from chatassist.entrypoints.http import envelope, openapi
from chatassist.entrypoints.http.form import Room
from chatassist.entrypoints.http.middleware import BodyLimit, ForwardingNotice, Frame
from chatassist.entrypoints.http.routes import ai, auth, chat, erasing, health, search, sessions, user
from chatassist.settings import HttpSettings

OpenServices = Callable[[], AbstractAsyncContextManager[Services]]


class State(TypedDict):
    """What the lifespan gives to every request."""

    services: Services


def create_app(
    open_services: OpenServices, http: HttpSettings, *, body_bytes: int = 262_144, audio_bytes: int = 25_165_824
) -> FastAPI:
    """Return the app; services are opened when it starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_services() as services:
            yield {"services": services}

    app = FastAPI(
        title="chatassist",
        version=__version__,
        description="AI聊天助手后端",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # spans nobody reads cost CPU all the same
        **_documents(public=bool(http.docs)),
    )
    app.state.reply_wait = http.reply_wait
    app.state.audio_bytes = audio_bytes
    app.state.audio_room = Room(ai.LARGEST_AT_ONCE * audio_bytes)
    chats = (chat.router, sessions.router, search.router, erasing.router)
    versioned = (chat.sending, auth.router, user.router, *chats, ai.router)  # looked through in this order, twice
    for router in versioned:
        app.include_router(router, prefix="/v1")
    app.include_router(health.router)
    envelope.install(app, [route for router in (*versioned, health.router) for route in router.routes])
    openapi.publish(app)
    caps = {f"/v1{ai.SPEECH_TO_TEXT}": audio_bytes + ai.FORM_BYTES}
    app.add_middleware(BodyLimit, max_bytes=body_bytes, larger=caps)
    _surround(app, http)
    return app


def _surround(app: FastAPI, http: HttpSettings) -> None:
    """Put the other layers around the app, innermost first."""
    if http.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(http.trusted_proxies))
    app.add_middleware(ForwardingNotice, trusted=http.trusted_proxies)
    if http.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(http.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                *("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "X-Request-Id")
            ],
            expose_headers=["ETag", "Retry-After", "X-Request-Id"],
        )
    app.add_middleware(Frame)


def _documents(*, public: bool) -> dict[str, Any]:
    return {"redoc_url": None} if public else {"redoc_url": None, "docs_url": None, "openapi_url": None}
