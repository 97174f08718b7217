"""The user's own record: profile, settings, use, and a copy of everything."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from chatassist.domain import errors
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.conditional import NOT_MODIFIED, held, tag_of, tagged
from chatassist.entrypoints.http.download import ExportDownload, ExportFormat
from chatassist.entrypoints.http.envelope import BodyTooLarge, Envelope, InvalidRequest, JsonInvalid
from chatassist.entrypoints.http.export_json import ExportOut
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.schemas import SettingsOut, UserOut, settings_out, user_out
from chatassist.entrypoints.http.user_schemas import ProfileIn, SettingsIn, UsageTodayOut, usage_today_out

router = APIRouter(prefix="/user", tags=["user"], route_class=StrictJsonRoute)

_READ = (*CALLER, errors.TooManyReads)
_CHANGE = (*_READ, InvalidRequest, JsonInvalid, BodyTooLarge)
_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ExportOut,
        "description": "A file; where it could not be ended the connection is cut",
        "content": {"text/markdown": {"schema": {"type": "string"}}},
        "headers": {"Content-Disposition": {"schema": {"type": "string"}}},
    }
}


@router.get("/info", response_model=Envelope[UserOut], responses={**refusals(*_READ), **NOT_MODIFIED})
async def info(request: Request, given: Given, caller: CallerNow) -> Response:
    """Show the user who is logged in. With `If-None-Match`, 304 when nothing changed."""
    user = await given.users.info(caller.user)
    tag = tag_of(request, user.id, user.revision)
    return held(request, tag) or tagged(Envelope(data=user_out(user)), tag)


@router.put("/info", responses=refusals(*_CHANGE, errors.ContentInvalid, errors.NicknameInvalid, errors.AvatarInvalid))
async def change_info(given: Given, caller: CallerNow, body: ProfileIn) -> Envelope[UserOut]:
    """Change name or avatar, or both; show the user as he is then."""
    return Envelope(data=user_out(await given.users.change(caller.user, body.change())))


@router.get("/settings", response_model=Envelope[SettingsOut], responses={**refusals(*_READ), **NOT_MODIFIED})
async def settings(request: Request, given: Given, caller: CallerNow) -> Response:
    """Show the user's settings. With `If-None-Match`, 304 when nothing changed."""
    user = await given.users.info(caller.user)
    tag = tag_of(request, user.id, user.revision)
    return held(request, tag) or tagged(Envelope(data=settings_out(user)), tag)


@router.put("/settings", responses=refusals(*_CHANGE))
async def change_settings(given: Given, caller: CallerNow, body: SettingsIn) -> Envelope[SettingsOut]:
    """Change some settings, from the next request on, on every instance; show all three."""
    return Envelope(data=settings_out(await given.users.change(caller.user, body.change())))


@router.get("/usage", responses=refusals(*_READ))
async def usage(given: Given, caller: CallerNow) -> Envelope[UsageTodayOut]:
    """Show what the user used today, and when the next day begins."""
    return Envelope(data=usage_today_out(await given.usage.today(caller.user)))


@router.get(
    "/export",
    response_class=Response,
    responses={**refusals(*_READ, InvalidRequest, errors.TooManyExports), **_DOWNLOAD},
)
async def export(
    given: Given, caller: CallerNow, form: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.JSON
) -> Response:
    """Download everything that is kept about the user. What he deleted is not in it, even while it can be restored."""
    return await ExportDownload.opened(given.exports.pages(caller.user), form)
