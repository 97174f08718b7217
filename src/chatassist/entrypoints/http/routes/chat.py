"""Turns: sending, following, stopping, trying again, rating, deleting."""

import re
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from chatassist.domain import errors
from chatassist.domain.services import Services
from chatassist.domain.services.messages import Sent
from chatassist.domain.services.users import Caller
from chatassist.domain.turns import Status
from chatassist.entrypoints.http.auth import CallerNow, Given
from chatassist.entrypoints.http.chat_schemas import (
    DeletedOut,
    FeedbackIn,
    MessageIn,
    MessageOut,
    RegenerateIn,
    SentOut,
    reply_out,
    sent_out,
)
from chatassist.entrypoints.http.envelope import BodyTooLarge, Envelope, InvalidRequest, JsonInvalid, TurnFailed, answer
from chatassist.entrypoints.http.middleware import StrictJsonRoute
from chatassist.entrypoints.http.openapi import CALLER, refusals
from chatassist.entrypoints.http.sending import SendRoute
from chatassist.entrypoints.http.sse import EventStream

router = APIRouter(prefix="/chat", tags=["chat"], route_class=StrictJsonRoute)
sending = APIRouter(prefix="/chat", tags=["chat"], route_class=SendRoute)

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
    errors.MessageNotFound,
    errors.ReplyRunning,
    errors.LlmBusy,
    errors.TooManySends,
    errors.ShuttingDown,
)
_REPLY_FAILED = (*errors.leaves(errors.ReplyFailed), errors.ContextTooLong)


_NUMBER = re.compile(r"[0-9]{1,15}")
# Routes name no response class for it: the media type of one would be said to carry the errors as well.
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`start`, then `delta`, `thinking`, `replace` and `title`, then exactly one `done` or `error`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_REPLY = (*CALLER, errors.MessageNotFound, errors.TooManyReads)
_REGENERATE = (
    InvalidRequest,
    JsonInvalid,
    BodyTooLarge,
    errors.KeyInvalid,
    errors.IdempotencyMismatch,
    errors.MessageNotFound,
    errors.NotLastTurn,
    errors.ReplyRunning,
    errors.ModelUnknown,
    errors.ContentBlocked,
    errors.LlmBusy,
    errors.TooManySends,
    errors.ShuttingDown,
)

IdempotencyKey = Annotated[list[str] | None, Header(description="The same as `clientMessageId`")]
Seq = Annotated[str | None, Query(description="The number of the last event that was seen")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="The same; the higher one counts")]
Wait = Annotated[
    float, Query(alias="waitSeconds", ge=0, le=25, allow_inf_nan=False, description="Seconds to wait for the end")
]


@sending.post("/message", response_model=Envelope[SentOut], responses=refusals(*CALLER, *_SEND, *_REPLY_FAILED))
async def send(
    request: Request, given: Given, caller: CallerNow, body: MessageIn, idempotency_key: IdempotencyKey = None
) -> Response:
    """Send a message and wait for the reply.

    Where the reply takes longer than the configured wait (50 s), `status` is `running` and the content is the text so
    far; the client goes on with `GET /chat/message/{messageId}`. A reply that failed is an error with the turn's ids,
    and the same send with the same key tries once more.
    """
    until = monotonic() + request.app.state.reply_wait
    sent = await given.messages.send(caller.user, body.draft(_one_key(body.client_message_id, idempotency_key)))
    return await _ended(given, sent, until)


@sending.post("/message/stream", response_class=Response, responses={**refusals(*CALLER, *_SEND), **_STREAM})
async def send_stream(
    given: Given, caller: CallerNow, body: MessageIn, idempotency_key: IdempotencyKey = None
) -> Response:
    """Send a message and follow the reply as it comes. An error known before the first byte is an envelope."""
    sent = await given.messages.send(caller.user, body.draft(_one_key(body.client_message_id, idempotency_key)))
    return EventStream(sent.turn, given.replies.events(sent.turn), replayed=sent.replayed)


@router.get("/message/{message_id}", response_model_exclude_none=True, responses=refusals(*_REPLY, InvalidRequest))
async def message(given: Given, caller: CallerNow, message_id: str, wait: Wait = 0.0) -> Envelope[MessageOut]:
    """Show a reply, with all text so far; with `waitSeconds`, as soon as it has ended or the time is over."""
    return Envelope(data=reply_out(await given.replies.get(caller.user, message_id, wait=wait)))


@router.get(
    "/message/{message_id}/stream",
    status_code=200,
    response_class=Response,
    responses={**refusals(*_REPLY, errors.BadSeq), **_STREAM},
)
async def message_stream(
    given: Given, caller: CallerNow, message_id: str, after: Seq = None, last_event_id: LastEventId = None
) -> Response:
    """Follow a reply from behind the last event that was seen; one that has ended is told to its end."""
    turn, events = await given.replies.follow(caller.user, message_id, max(_seq(after), _seq(last_event_id)))
    return EventStream(turn, events, replayed=True)


@router.post("/message/{message_id}/stop", response_model_exclude_none=True, responses=refusals(*_REPLY))
async def stop(given: Given, caller: CallerNow, message_id: str) -> Envelope[MessageOut]:
    """Stop a reply and keep its text; show how it ended. Harmless when it has ended already."""
    return Envelope(data=reply_out(await given.replies.stop(caller.user, message_id)))


@router.post(
    "/message/{message_id}/regenerate",
    response_model=Envelope[SentOut],
    responses=refusals(*CALLER, *_REGENERATE, *_REPLY_FAILED),
)
async def regenerate(
    request: Request,
    given: Given,
    caller: CallerNow,
    message_id: str,
    body: RegenerateIn | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Have the session's last message answered anew and wait for the reply: a new version, beside the old one."""
    until = monotonic() + request.app.state.reply_wait
    return await _ended(given, await _regenerated(given, caller, message_id, body, idempotency_key), until)


@router.post(
    "/message/{message_id}/regenerate/stream",
    status_code=200,
    response_class=Response,
    responses={**refusals(*CALLER, *_REGENERATE), **_STREAM},
)
async def regenerate_stream(
    given: Given,
    caller: CallerNow,
    message_id: str,
    body: RegenerateIn | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Have the session's last message answered anew and follow the reply as it comes."""
    sent = await _regenerated(given, caller, message_id, body, idempotency_key)
    return EventStream(sent.turn, given.replies.events(sent.turn), replayed=sent.replayed)


@router.put(
    "/message/{message_id}/feedback",
    response_model_exclude_none=True,
    responses=refusals(*_REPLY, InvalidRequest, JsonInvalid, BodyTooLarge, errors.ContentInvalid),
)
async def feedback(given: Given, caller: CallerNow, message_id: str, body: FeedbackIn) -> Envelope[MessageOut]:
    """Keep what the user thinks of a reply."""
    return Envelope(data=reply_out(await given.replies.rate(caller.user, message_id, body.feedback())))


@router.delete("/message/{message_id}", responses=refusals(*_REPLY))
async def delete(given: Given, caller: CallerNow, message_id: str) -> Envelope[DeletedOut]:
    """Erase the whole turn of a reply, for good."""
    return Envelope(data=DeletedOut(deleted_messages=await given.replies.delete(caller.user, message_id)))


async def _regenerated(
    given: Services, caller: Caller, message_id: str, body: RegenerateIn | None, headers: Sequence[str] | None
) -> Sent:
    wish = body or RegenerateIn()
    key = _one_key(wish.client_message_id, headers)
    return await given.messages.regenerate(caller.user, message_id, key=key, model=wish.model)


async def _ended(given: Services, sent: Sent, until: float) -> Response:
    """Return the turn once its reply has ended, or as it stands at that time. Raises TurnFailed."""
    turn = await given.messages.settle(sent.turn, max(until - monotonic(), 0.0))
    if turn.reply.status is Status.FAILED:
        raise TurnFailed(turn)
    return answer(Envelope(data=sent_out(replace(sent, turn=turn))))


def _one_key(field: str | None, headers: Sequence[str] | None) -> str | None:
    given = {*(headers or ()), *(() if field is None else (field,))}
    if len(given) > 1:
        raise errors.IdempotencyMismatch
    return next(iter(given), None)


def _seq(text: str | None) -> int:
    if not text:
        return 0
    if not _NUMBER.fullmatch(text):
        raise errors.BadSeq
    return int(text)
