"""Sending a message, and looking at its reply again."""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from chatassist.domain import errors
from chatassist.domain.turns import Status
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.envelope import BodyTooLarge, Envelope, InvalidRequest, JsonInvalid, TurnFailed, answer
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.schemas import MessageIn, MessageOut, SentOut, reply_out, sent_out

router = APIRouter(prefix="/chat", tags=["chat"], route_class=StrictJsonRoute)

_SEND = (
    InvalidRequest,
    JsonInvalid,
    BodyTooLarge,
    errors.ContentEmpty,
    errors.ContentTooLong,
    errors.ContentInvalid,
    errors.ContentBlocked,
    errors.ModelUnknown,
    errors.KeyInvalid,
    errors.IdempotencyMismatch,
    errors.SessionNotFound,
    errors.TooManySends,
    errors.ShuttingDown,
)
_REPLY_FAILED = (*errors.leaves(errors.ReplyFailed), errors.ContextTooLong)


@router.post("/message", response_model=Envelope[SentOut], responses=refusals(*CALLER, *_SEND, *_REPLY_FAILED))
async def send(
    request: Request,
    given: Given,
    caller: CallerNow,
    body: MessageIn,
    idempotency_key: Annotated[list[str] | None, Header(description="The same as `clientMessageId`")] = None,
) -> Response:
    """Send a message and wait for the reply.

    Where the reply takes longer than the configured wait (50 s), `status` is `running` and the content is the text so
    far; the client goes on with `GET /chat/message/{messageId}`. A reply that failed is an error with the turn's ids.
    """
    until = monotonic() + request.app.state.reply_wait
    sent = await given.messages.send(caller.user, body.draft(_one_key(body.client_message_id, idempotency_key)))
    turn = await given.messages.settle(sent.turn, max(until - monotonic(), 0.0))
    if turn.reply.status is Status.FAILED:
        raise TurnFailed(turn, replayed=sent.replayed)
    return answer(Envelope(data=sent_out(replace(sent, turn=turn))))


@router.get(
    "/message/{message_id}",
    response_model_exclude_none=True,
    responses=refusals(*CALLER, errors.MessageNotFound, errors.TooManyReads),
)
async def message(given: Given, caller: CallerNow, message_id: str) -> Envelope[MessageOut]:
    """Show a reply, with all text so far."""
    return Envelope(data=reply_out(await given.messages.get(caller.user, message_id)))


def _one_key(field: str | None, headers: Sequence[str] | None) -> str | None:
    given = {*(headers or ()), *(() if field is None else (field,))}
    if len(given) > 1:
        raise errors.IdempotencyMismatch
    return next(iter(given), None)
