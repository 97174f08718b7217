"""What `SendRoute` puts together by hand is what FastAPI puts together, down to its errors."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute

from chatassist.domain.errors import LoginEnded
from chatassist.domain.services import Services
from chatassist.domain.services.users import Caller
from chatassist.entrypoints.http import envelope
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.chat_schemas import MessageIn
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.routes.chat import IdempotencyKey
from chatassist.entrypoints.http.sending import SendRoute
from tests.builders import a_user

USER = a_user()
TOKEN = {"Authorization": "Bearer good"}
JSON = {"Content-Type": "application/json"}
FINE = b'{"content": "hi"}'


class KnownUsers:
    async def authenticate(self, token: str, *, even_blocked: bool = False) -> Caller:
        if token != "good":
            raise LoginEnded
        return Caller(user=USER, login_id="login-1")


def app_of(route_class: type[APIRoute]) -> FastAPI:
    services = Services.__new__(Services)
    object.__setattr__(services, "users", KnownUsers())  # it is frozen, and nothing else of it is used
    router = APIRouter(route_class=route_class)

    @router.post("/send", response_class=Response)
    async def send(
        request: Request, given: Given, caller: CallerNow, body: MessageIn, idempotency_key: IdempotencyKey = None
    ) -> Response:
        assert given is services
        told = {"path": request.url.path, "login": caller.login_id, "keys": idempotency_key, "body": body.model_dump()}
        return Response(json.dumps(told), media_type="application/json")

    app = FastAPI()
    app.include_router(router)
    envelope.install(app, router.routes)

    @app.middleware("http")
    async def state(request: Request, call_next: Any) -> Any:
        request.state.services, request.state.request_id = services, "request-1"
        return await call_next(request)

    return app


@asynccontextmanager
async def asking(route_class: type[APIRoute]) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app_of(route_class))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", trust_env=False) as client:
        yield client


BODIES = [
    FINE,
    b"",
    b" ",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"{",
    b"{}",
    b'{"content": NaN}',
    b'{"content": 1}',
    b'{"content": null}',
    b'{"content": ["x"]}',
    b'{"content": "x", "sessionId": 5, "model": []}',
    b'{"content": "x", "sessionId": "s", "clientMessageId": "k", "model": "m", "more": {}}',
    b'{"content": "x", "session_id": "s"}',
    b'{"sessionId": "s"}',
    b'{"content": "\\ud800"}',
    b'{"content": "\\u0000"}',
    b'{"content": "a", "content": "b"}',
    b"\xff\xfe{}",
    b'\xef\xbb\xbf{"content": "x"}',
    '{"content": "你好"}'.encode("utf-16"),
    b"[" * 20_000,
    b'{"content": ' + b"1" * 5000 + b"}",
]
TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    "application/merge-patch+json",
    "application/x/y+json",
    "text/json",
    "text/plain",
    "application/octet-stream",
    "application/jsonp",
    "json",
    "",
    ";",
]
HEADERS: list[dict[str, str] | list[tuple[str, str]]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "bearer good"},
    {"Authorization": "Basic good"},
    {"Authorization": "Bearer bad"},
    {**TOKEN, "Idempotency-Key": "one"},
    {**TOKEN, "Idempotency-Key": ""},
    [*TOKEN.items(), ("Idempotency-Key", "one"), ("idempotency-key", "two")],
]
WISHES = [
    *(([*JSON.items(), *TOKEN.items()], body) for body in BODIES),
    *(([("Content-Type", kind), *TOKEN.items()], FINE) for kind in TYPES),
    *(([*JSON.items(), *(given.items() if isinstance(given, dict) else given)], FINE) for given in HEADERS),
    (list(TOKEN.items()), FINE),
    (list(JSON.items()), b"{"),
    (list(JSON.items()), b"{}"),
]


@pytest.mark.parametrize(("headers", "body"), WISHES, ids=range(len(WISHES)))
async def test_a_wish_is_answered_as_fastapi_would(headers: list[tuple[str, str]], body: bytes) -> None:
    async with asking(SendRoute) as ours, asking(StrictJsonRoute) as theirs:
        answer = await ours.post("/send", headers=headers, content=body)
        expected = await theirs.post("/send", headers=headers, content=body)

    assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())


async def test_what_fits_reaches_the_endpoint() -> None:
    async with asking(SendRoute) as client:
        answer = await client.post("/send", headers={**JSON, **TOKEN, "Idempotency-Key": "k"}, content=FINE)

    assert answer.json()["body"]["content"] == "hi"
    assert answer.json()["keys"] == ["k"]


def test_an_endpoint_that_takes_anything_else_is_refused() -> None:
    router = APIRouter(route_class=SendRoute)

    async def strange(given: Given, caller: CallerNow, body: MessageIn) -> Response:
        return Response()

    with pytest.raises(TypeError, match="idempotency_key"):
        router.post("/send", response_class=Response)(strange)
