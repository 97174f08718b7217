"""Sessions and their history: lists to page through, and what a session is called."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chatassist.domain import errors
from chatassist.domain.ports.archive import FIRST_OF_ALL
from chatassist.domain.search import KEYWORD_CHARS
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.conditional import NOT_MODIFIED, held, tag_of, tagged
from chatassist.entrypoints.http.envelope import BodyTooLarge, Envelope, InvalidRequest, JsonInvalid, answer
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.session_schemas import (
    HistoryOut,
    SessionIn,
    SessionOut,
    SessionsOut,
    history_out,
    mark_in,
    session_out,
    sessions_out,
)

router = APIRouter(prefix="/chat", tags=["sessions"], route_class=StrictJsonRoute)

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most")]
Cursor = Annotated[str | None, Query(description="`nextCursor` of the page before; only for the same list")]
Keyword = Annotated[
    str | None,
    Query(
        description=f"Only titles with exactly this in them: 1 to {KEYWORD_CHARS} characters after trimming",
        json_schema_extra={"maxLength": KEYWORD_CHARS},
    ),
]
SessionId = Annotated[str, Query(alias="sessionId", min_length=1)]
Before = Annotated[str | None, Query(description="A message's id: the messages right before it")]
After = Annotated[str | None, Query(description="A message's id: the messages right after it")]

_LOOK = (*CALLER, errors.TooManyReads)
_LIST = (*_LOOK, InvalidRequest, errors.BadCursor)
_NAMED = (errors.ContentInvalid, errors.KeywordEmpty, errors.KeywordTooLong)
_SESSION = (*_LOOK, errors.SessionNotFound)
_EDIT = (InvalidRequest, JsonInvalid, BodyTooLarge, errors.ContentInvalid, errors.TitleEmpty, errors.TitleTooLong)


@router.get(
    "/sessions",
    response_model=Envelope[SessionsOut],
    responses={**refusals(*_LIST, *_NAMED), **NOT_MODIFIED},
)
async def sessions(
    request: Request,
    given: Given,
    caller: CallerNow,
    cursor: Cursor = None,
    limit: Limit = 20,
    keyword: Keyword = None,
) -> Response:
    """List the user's sessions, pinned ones first, then by their last activity.

    One that moves while the list is paged through may appear twice; one that does not is neither skipped nor repeated.
    A session of which nothing ever came is not listed. With `If-None-Match`, 304 when nothing changed.
    """
    user = await given.users.info(caller.user)
    named = (keyword or "").strip()
    mark = FIRST_OF_ALL if cursor is None else mark_in(cursor, user.id, named)
    tag = tag_of(request, user.id, user.revision)
    if unchanged := held(request, tag):
        return unchanged
    listing = await given.sessions.page(user, limit=limit, mark=mark, keyword=keyword)
    return tagged(Envelope(data=sessions_out(listing, user.id, named)), tag)


@router.get(
    "/sessions/{session_id}",
    response_model=Envelope[SessionOut],
    responses={**refusals(*_SESSION), **NOT_MODIFIED},
)
async def session(request: Request, given: Given, caller: CallerNow, session_id: str) -> Response:
    """Show a session. With `If-None-Match`, 304 when nothing changed."""
    found = await given.sessions.get(caller.user, session_id)
    tag = tag_of(request, found.id, found.revision)
    return held(request, tag) or tagged(Envelope(data=session_out(found)), tag)


@router.put("/sessions/{session_id}", response_model=Envelope[SessionOut], responses=refusals(*_SESSION, *_EDIT))
async def edit(given: Given, caller: CallerNow, session_id: str, body: SessionIn) -> Response:
    """Name a session, or pin it to the top of the list. A title that the user gave is never replaced."""
    edited = await given.sessions.edit(caller.user, session_id, title=body.title, pinned=body.pinned)
    return answer(Envelope(data=session_out(edited)))


@router.get(
    "/history",
    response_model=Envelope[HistoryOut],
    responses={**refusals(*_LIST, errors.SessionNotFound), **NOT_MODIFIED},
)
async def history(
    request: Request,
    given: Given,
    caller: CallerNow,
    session_id: SessionId,
    before: Before = None,
    after: After = None,
    limit: Limit = 20,
) -> Response:
    """Show messages of a session, oldest first: the newest, or those right before or right after one of them.

    A turn is two messages, its question and its reply in the version that it shows; any version's id means that place.
    With `If-None-Match`, 304 when nothing changed. While a reply is being made there is no `ETag`: its text grows.
    """
    if before is not None and after is not None:
        raise InvalidRequest("after")
    found = await given.sessions.get(caller.user, session_id)
    tag = tag_of(request, found.id, found.revision)
    if not found.running and (unchanged := held(request, tag)):
        return unchanged
    anchor = after if before is None else before
    page = await given.history.page(found, limit=limit, anchor=anchor, older=after is None)
    return tagged(Envelope(data=history_out(page)), tag if page.settled else None, omit_none=True)
