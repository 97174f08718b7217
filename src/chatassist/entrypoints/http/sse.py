"""A reply as server-sent events: ASCII only, so that no cut of the bytes can break a character."""

import asyncio
import json
import logging
import math
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatassist.domain import errors
from chatassist.domain.errors import ChatAssistError, Internal, ShuttingDown, StoreUnavailable
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace, Thinking, Titled
from chatassist.domain.services.replies import Events
from chatassist.domain.turns import End, Status, Turn
from chatassist.entrypoints.http.chat_schemas import usage_out
from chatassist.entrypoints.http.envelope import SENTENCES, status_of
from chatassist.entrypoints.http.schemas import wire_time

log = logging.getLogger(__name__)

_json = json.JSONEncoder(separators=(",", ":")).encode  # made once: it costs more than what it says of a delta
_COMMENT = b": still here\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # or nginx would hold the events back
]


class EventStream(Response):
    """Opens with `start`, tells what the reply's feed tells, and ends with exactly one `done` or `error`.

    A reader who is slow holds nothing but his own connection: what he missed meanwhile comes as one `replace`.
    """

    media_type = "text/event-stream"

    def __init__(self, turn: Turn, events: Events, *, replayed: bool) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = list(_HEADERS)
        self._turn = turn
        self._events = events
        self._replayed = replayed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; once the client is gone, at the next event or comment, nothing more."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._start(), "more_body": True})
        gone = asyncio.create_task(until_gone(receive))
        try:
            async with aclosing(self._events) as batches:
                async for batch in batches:
                    if gone.done():
                        return
                    body = b"".join(map(encoded, batch)) or _COMMENT
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            last = b""
        except asyncio.CancelledError:  # the server ends, and waits no longer
            last = _broken(ShuttingDown())
        except ChatAssistError as error:
            last = _broken(error)
        except Exception:
            log.exception("stream broke", extra={"reply_id": self._turn.reply.id})
            last = _broken(Internal())
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": last})

    def _start(self) -> bytes:
        message = self._turn.message
        ids = {"messageId": self._turn.reply.id, "sessionId": message.session_id, "userMessageId": message.id}
        return _event("start", {**ids, "replayed": self._replayed})


def encoded(numbered: Numbered) -> bytes:
    """Return one event of a feed as it is sent."""
    head = b"id: %d\n" % numbered.seq
    match numbered.event:
        case Delta(text):
            return head + _text("delta", text)
        case Thinking(text):
            return head + _text("thinking", text)
        case Replace(content, reason):
            return head + _event("replace", {"content": content, "reason": reason})
        case Titled(session_id, title):
            return head + _event("title", {"sessionId": session_id, "title": title})
        case Ended(end):
            return head + (_failed(end) if end.status is Status.FAILED else _event("done", _done(end)))


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {_json(data)}\n\n".encode("ascii")


def _text(name: str, text: str) -> bytes:
    """Return what `_event` does of a text alone, at a fraction of the price."""
    return f'event: {name}\ndata: {{"text":{_json(text)}}}\n\n'.encode("ascii")


def _done(end: End) -> Mapping[str, Any]:
    usage = usage_out(end.usage)
    return {
        "status": end.status.value,
        "finishReason": end.finish_reason.value,
        "length": len(end.content or ""),
        "model": end.model,
        "usage": usage and usage.model_dump(by_alias=True),
        "time": wire_time(end.at),
    }


def _failed(end: End) -> bytes:
    kind = errors.named(end.reason)
    return _event("error", _told(kind, Status.FAILED, kind.retry_after))


def _broken(error: ChatAssistError) -> bytes:
    """Return what ends a stream whose reply goes on: it is to be resumed. A deleted reply is over."""
    over = isinstance(error, errors.NotFound)
    if isinstance(error, StoreUnavailable):
        log.warning("stream broke", extra={"reason": error.slug, "detail": str(error)})
    return _event("error", _told(type(error), Status.FAILED if over else Status.RUNNING, error.retry_after))


def _told(kind: type[ChatAssistError], status: Status, retry_after: float | None) -> Mapping[str, Any]:
    known = errors.named(kind.slug)
    wait = 1.0 if retry_after is None and status is Status.RUNNING else retry_after
    told: dict[str, Any] = {
        "code": status_of(known),
        "reason": known.slug,
        "message": SENTENCES[known.slug],
        "status": status.value,
        "retryable": wait is not None,
    }
    return told if wait is None else {**told, "retryAfter": math.ceil(wait)}


async def until_gone(receive: Receive) -> None:
    """Return once the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
