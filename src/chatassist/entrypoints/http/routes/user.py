"""The user's own record."""

from typing import Any

from fastapi import APIRouter, Request, Response

from chatassist.domain import errors
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.envelope import Envelope, conditional
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.schemas import UserOut, user_out

router = APIRouter(prefix="/user", tags=["user"])

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "What the client holds under its ETag is still true"}
}


@router.get(
    "/info", response_model=Envelope[UserOut], responses={**refusals(*CALLER, errors.TooManyReads), **_NOT_MODIFIED}
)
async def info(request: Request, given: Given, caller: CallerNow) -> Response:
    """Show the user who is logged in. With `If-None-Match`, 304 when nothing changed."""
    return conditional(request, Envelope(data=user_out(await given.users.info(caller.user))))
