"""The published description: every envelope, and for each endpoint every error with its reasons."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from chatassist.domain.errors import (
    ChatAssistError,
    Internal,
    LoginEnded,
    ShuttingDown,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    UserBlocked,
)
from chatassist.entrypoints.http.envelope import Refusal, status_of

AUTHENTICATED = (TokenMissing, TokenInvalid, TokenExpired, LoginEnded)
CALLER = (*AUTHENTICATED, UserBlocked)

_MEANINGS = {
    400: "请求参数错误",
    401: "未授权或token已过期",
    403: "权限不足",
    404: "资源不存在",
    429: "请求过于频繁",
    500: "服务器内部错误",
}


def refusals(*kinds: type[ChatAssistError]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of an endpoint that may fail in these ways, and in those that every one may."""
    reasons: dict[int | str, list[str]] = {}
    every: tuple[type[ChatAssistError], ...] = (*kinds, StoreUnavailable, Internal, ShuttingDown)
    for kind in dict.fromkeys(every):  # the frame says the last of these where the server waits no longer
        reasons.setdefault(status_of(kind), []).append(kind.slug)
    return {
        status: {
            "model": Refusal,
            "description": _MEANINGS[int(status)],
            "headers": _headers(int(status)),
            "content": {"application/json": {"schema": {"properties": _narrowed(int(status), slugs)}}},
        }
        for status, slugs in sorted(reasons.items(), key=lambda item: int(item[0]))
    }


def form_body(file: str, description: str, texts: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of an endpoint that takes a form with one file and some texts."""
    fields = texts.model_json_schema()["properties"]
    upload = {"type": "string", "format": "binary", "description": description}
    schema = {"type": "object", "required": [file], "properties": {file: upload, **fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def publish(app: FastAPI) -> None:
    """Make the app describe itself as it behaves: FastAPI's own 422 is never sent."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=None
            )
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _narrowed(status: int, slugs: list[str]) -> Mapping[str, Any]:
    return {"code": {"const": status}, "reason": {"enum": sorted(slugs)}}


def _headers(status: int) -> Mapping[str, Any]:
    headers = {"X-Request-Id": {"schema": {"type": "string"}}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if status in (429, 500):
        headers["Retry-After"] = {"schema": {"type": "string"}}
    return headers
