"""The user's own record."""

from fastapi import APIRouter, Request, Response

from chatassist.domain import errors
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.conditional import NOT_MODIFIED, held, tag_of, tagged
from chatassist.entrypoints.http.envelope import Envelope
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.schemas import UserOut, user_out

router = APIRouter(prefix="/user", tags=["user"])


@router.get(
    "/info", response_model=Envelope[UserOut], responses={**refusals(*CALLER, errors.TooManyReads), **NOT_MODIFIED}
)
async def info(request: Request, given: Given, caller: CallerNow) -> Response:
    """Show the user who is logged in. With `If-None-Match`, 304 when nothing changed."""
    user = await given.users.info(caller.user)
    tag = tag_of(request, user.id, user.revision)
    return held(request, tag) or tagged(Envelope(data=user_out(user)), tag)
