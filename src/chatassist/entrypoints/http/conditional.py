"""Conditional GET: what a client still holds is not sent again, nor even put together.

The tag is made of what was asked and of a revision: a number that every write raises that shows in the answer. It has
to be read before what it stands for, or with it: read after, it would stand for what the client was not given.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from chatassist import __version__

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "What the client holds under its ETag is still true"}
}
"""What an endpoint with tags adds to its `responses`."""

_HEADERS = {"Cache-Control": "private, no-cache"}


def tag_of(request: Request, owner: str, revision: int) -> str:
    """Return the tag of the answer to this request, as long as its owner (a user or session id) has this revision."""
    asked: Sequence[Any] = (request.url.path, sorted(request.query_params.multi_items()))
    about = json.dumps([__version__, asked, owner, revision])
    return f'"{hashlib.sha256(about.encode()).hexdigest()[:32]}"'


def held(request: Request, tag: str) -> Response | None:
    """Return the 304 that the client's `If-None-Match` earns, if it does. Proxies that compress make tags weak."""
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    return Response(status_code=304, headers=_HEADERS | {"ETag": tag}) if known & {tag, "*"} else None


def tagged(body: BaseModel, tag: str | None, *, omit_none: bool = False) -> Response:
    """Return a 200 under its tag; None for what changes though no revision does. `omit_none`: without empty fields."""
    content = body.model_dump_json(by_alias=True, exclude_none=omit_none)
    return Response(content, headers=_HEADERS | ({"ETag": tag} if tag else {}), media_type="application/json")
