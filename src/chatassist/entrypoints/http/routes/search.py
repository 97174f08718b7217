"""Searching what was said."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from chatassist.domain import errors
from chatassist.domain.model import is_id
from chatassist.domain.search import KEYWORD_CHARS
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.cursors import cursor_of, values_of
from chatassist.entrypoints.http.envelope import Envelope, InvalidRequest, answer
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.search_schemas import FoundOut, found_out

router = APIRouter(prefix="/chat", tags=["sessions"])

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most")]
Cursor = Annotated[str | None, Query(description="`nextCursor` of the page before; only for the same keyword")]

Keyword = Annotated[
    str,
    Query(
        description=f"1 to {KEYWORD_CHARS} characters after trimming, found exactly as they are",
        json_schema_extra={"maxLength": KEYWORD_CHARS},
    ),
]


@router.get(
    "/search",
    response_model=Envelope[FoundOut],
    responses=refusals(
        *CALLER,
        InvalidRequest,
        errors.KeywordEmpty,
        errors.KeywordTooLong,
        errors.ContentInvalid,
        errors.BadCursor,
        errors.TooManyReads,
    ),
)
async def search(
    given: Given, caller: CallerNow, keyword: Keyword, cursor: Cursor = None, limit: Limit = 20
) -> Response:
    """Find messages with these very characters in them, newest first: case counts, and nothing is a wildcard.

    Looked through are questions, and replies as their turn shows them, of all listed sessions. One request looks
    through 10,000 messages at most, so a page may be short or empty while `hasMore` is true: go on with `nextCursor`.
    """
    list_of = ("search", caller.user.id, keyword.strip())
    place = None if cursor is None else _place(cursor, list_of)
    page = await given.search.find(caller.user, keyword, before=place, limit=limit)
    return answer(Envelope(data=found_out(page.hits, page.before and cursor_of([page.before], *list_of))))


def _place(cursor: str, list_of: Sequence[str]) -> str:
    match values_of(cursor, *list_of):
        case [str(message_id)] if is_id(message_id):
            return message_id
    raise errors.BadCursor
