"""Logging in and out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from chatassist.domain import errors
from chatassist.entrypoints.http.auth import CallerEvenBlocked, Given, client_address
from chatassist.entrypoints.http.envelope import BodyTooLarge, Envelope, InvalidRequest, JsonInvalid
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.openapi import AUTHENTICATED, refusals
from chatassist.entrypoints.http.schemas import LoginIn, LoginOut, login_out

router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictJsonRoute)

_LOGIN = (
    InvalidRequest,
    JsonInvalid,
    BodyTooLarge,
    errors.LoginCodeInvalid,
    errors.WeChatUserBlocked,
    errors.UserBlocked,
    errors.TooManyLogins,
    errors.WeChatRateLimited,
    errors.IdentityUnavailable,
    errors.IdentityMisconfigured,
)


@router.post("/wechat-login", responses=refusals(*_LOGIN))
async def wechat_login(request: Request, given: Given, body: LoginIn) -> Envelope[LoginOut]:
    """Exchange a code of `wx.login` for a token. The code alone is the identity; the first login makes the user."""
    return Envelope(data=login_out(await given.users.login(body.code, body.profile(), client_address(request))))


@router.post("/logout", responses=refusals(*AUTHENTICATED, InvalidRequest))
async def logout(
    given: Given,
    caller: CallerEvenBlocked,
    everywhere: Annotated[bool, Query(alias="all", description="End every login of the user")] = False,
) -> Envelope[None]:
    """End this login: the token is refused from the next request on, on every instance."""
    await given.users.logout(caller, everywhere=everywhere)
    return Envelope(message="已成功退出登录", data=None)
