"""Deleting: sessions, which can be undone for a while, and the whole account, which cannot."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from chatassist.domain import errors
from chatassist.domain.ports.erasing import Deletion
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.envelope import BodyTooLarge, Envelope, InvalidRequest, JsonInvalid
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.schemas import Asked, Time, Wire

router = APIRouter(tags=["deleting"], route_class=StrictJsonRoute)

_DELETE = (*CALLER, errors.SessionNotFound, errors.TooManyReads)
_RESTORE = (*CALLER, InvalidRequest, JsonInvalid, BodyTooLarge, errors.UndoExpired, errors.TooManyReads)
_ACCOUNT = (
    *CALLER,
    InvalidRequest,
    JsonInvalid,
    BodyTooLarge,
    errors.LoginCodeInvalid,
    errors.WrongAccount,
    errors.WeChatUserBlocked,
    errors.TooManyReads,
    errors.WeChatRateLimited,
    errors.IdentityUnavailable,
    errors.IdentityMisconfigured,
)


class RestoreIn(Asked):
    """A deletion to undo."""

    undo_token: str = Field(description="What deleting answered")


class AccountDeleteIn(Asked):
    """Whose account is to go."""

    code: str = Field(description="A fresh one-time code of `wx.login`, of the account's own user")


class DeletedSessionsOut(Wire):
    """What is gone; token and time are null where there was nothing to delete, and is nothing to undo."""

    deleted_sessions: int
    deleted_messages: int
    undo_token: str | None
    undo_until: Time | None


class RestoredOut(Wire):
    """What is back."""

    restored_sessions: int
    restored_messages: int


@router.delete("/chat/sessions/{session_id}", responses=refusals(*_DELETE))
async def delete_session(given: Given, caller: CallerNow, session_id: str) -> Envelope[DeletedSessionsOut]:
    """Delete a session, after stopping what runs in it; for seven days that can be undone. Again: the same answer."""
    return Envelope(data=_deleted_out(await given.deletions.delete(caller.user, session_id)))


@router.delete("/chat/history", responses=refusals(*_DELETE, InvalidRequest))
async def clear_history(
    request: Request,
    given: Given,
    caller: CallerNow,
    session_id: Annotated[str | None, Query(alias="sessionId", description="Delete this session")] = None,
    everything: Annotated[Literal["true"] | None, Query(alias="all", description="Delete all sessions")] = None,
) -> Envelope[DeletedSessionsOut]:
    """Delete one session or all of them, as `DELETE /chat/sessions/{sessionId}` does. Exactly one has to be named."""
    for name in ("sessionId", "all"):
        if len(request.query_params.getlist(name)) > 1:  # they may contradict each other
            raise InvalidRequest(name)
    if everything is None:
        if not session_id:
            raise InvalidRequest("sessionId")
        return Envelope(data=_deleted_out(await given.deletions.delete(caller.user, session_id)))
    if session_id is not None:  # it would not be clear which is meant
        raise InvalidRequest("all")
    return Envelope(data=_deleted_out(await given.deletions.clear(caller.user)))


@router.post("/chat/history/restore", responses=refusals(*_RESTORE))
async def restore(given: Given, caller: CallerNow, body: RestoreIn) -> Envelope[RestoredOut]:
    """Undo a deletion: just what it deleted comes back as it was. Again: zeros."""
    restored = await given.deletions.restore(caller.user, body.undo_token)
    return Envelope(data=RestoredOut(restored_sessions=restored.sessions, restored_messages=restored.messages))


@router.post("/user/account/delete", responses=refusals(*_ACCOUNT))
async def delete_account(given: Given, caller: CallerNow, body: AccountDeleteIn) -> Envelope[None]:
    """Delete the account, every login and everything that was said, at once and for good."""
    await given.accounts.delete(caller.user, body.code)
    return Envelope(data=None)


def _deleted_out(deletion: Deletion | None) -> DeletedSessionsOut:
    if deletion is None:
        return DeletedSessionsOut(deleted_sessions=0, deleted_messages=0, undo_token=None, undo_until=None)
    return DeletedSessionsOut(
        deleted_sessions=deletion.sessions,
        deleted_messages=deletion.messages,
        undo_token=deletion.id,
        undo_until=deletion.until,
    )
