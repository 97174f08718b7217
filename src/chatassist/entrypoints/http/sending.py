"""The way into the endpoints that take a message: what they take is put together here, by hand.

FastAPI's own way through parameters, dependencies and exit stacks was a tenth of a whole turn's CPU. The endpoints are
declared as all others are, so they are described and checked like them; the order and the errors are FastAPI's as well:
is it JSON, who calls, do the fields fit.
"""

import inspect
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from chatassist.entrypoints.http.auth import bearer, caller, services
from chatassist.entrypoints.http.chat_schemas import MessageIn
from chatassist.entrypoints.http.envelope import JsonInvalid
from chatassist.entrypoints.http.middleware import StrictRequest

_TAKEN = {"given", "caller", "body", "idempotency_key"}


class SendRoute(APIRoute):
    """A route whose endpoint takes `given`, `caller`, `body: MessageIn` and `idempotency_key`, and maybe `request`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        endpoint = self.endpoint
        taken = inspect.signature(endpoint).parameters.keys()
        if taken - {"request"} != _TAKEN:
            raise TypeError(f"an endpoint of a SendRoute takes {sorted(_TAKEN)}")

        async def handle(request: Request) -> Response:
            document = await _document(StrictRequest(request.scope, request.receive))
            given = await services(request)
            answer: Response = await endpoint(
                **({"request": request} if "request" in taken else {}),
                given=given,
                caller=await caller(given, await bearer(request)),
                body=_message(document),
                idempotency_key=request.headers.getlist("idempotency-key") or None,
            )
            return answer

        return handle


async def _document(request: Request) -> object:
    """Return what the body says; its bytes where it is not sent as JSON. Raises JsonInvalid."""
    try:
        body = await request.body()
    except ClientDisconnect as exc:
        raise HTTPException(400) from exc
    if not (body and _is_json(request.headers.get("content-type", ""))):
        return body
    try:
        return await request.json()
    except json.JSONDecodeError as exc:
        raise JsonInvalid from exc


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return True
    return kind.startswith("application/") and kind.endswith("+json") and kind.count("/") == 1


def _message(document: object) -> MessageIn:
    """Return a body's fields. Raises RequestValidationError, which names the first that does not fit."""
    try:
        return MessageIn.model_validate(document)
    except ValidationError as exc:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]) from exc
