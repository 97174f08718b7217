"""The floor: the least that a correct service could do for a turn, as bare ASGI under the same uvicorn.

It verifies the token, reads login and user, claims the turn, streams the vendor's reply, stores the end and answers,
statement for statement as the service does, with no framework, no ORM and no ports. `…/stream` is the bare relay:
the same turn, each delta passed on as an event of the contract. It is a measure, not an example: it answers errors with
a 500, has no limits, and outlives no crash.
"""

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
import uuid_utils
import uvicorn
from sqlalchemy import make_url

from benchmarks.client import Connection
from benchmarks.floor_store import Ask, FloorStore, Said, open_store
from benchmarks.script import DAY_ZONE, MODEL
from chatassist.adapters.identity.pseudonym import pseudonyms

BLOCKING, STREAM = "/v1/chat/message", "/v1/chat/message/stream"
HISTORY = 6000  # characters, which are never fewer than the service's estimate of tokens

_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store, no-transform")]


@dataclass(slots=True)
class Reply:
    """What the vendor said, folded."""

    text: list[str] = field(default_factory=list)
    finish: str = ""
    model: str = MODEL
    usage: dict[str, int] = field(default_factory=dict)

    def take(self, event: bytes) -> str:
        """Keep what one event of the vendor brings; return its text."""
        if event == b"data: [DONE]":
            return ""
        said = json.loads(event[6:])
        self.model = said["model"]
        self.usage = said.get("usage") or self.usage
        choice = said["choices"][0]
        self.finish = choice["finish_reason"] or self.finish
        text: str = choice["delta"].get("content", "")
        if text:
            self.text.append(text)
        return text


class Vendor:
    """The way to the vendor: connections kept alive, the youngest first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def stream(self, messages: list[dict[str, str]], reply: Reply) -> AsyncIterator[str]:
        """Yield the texts of a reply while `reply` folds them."""
        body = json.dumps(
            {"model": MODEL, "messages": messages, "stream": True, "stream_options": {"include_usage": True}},
            ensure_ascii=False,
        ).encode()
        connection = self._idle.pop() if self._idle else await Connection.to(self._port)
        connection.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer bench\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        held = b""
        while part := await connection.read():
            *events, held = (held + part).split(b"\n\n")
            for event in events:
                if text := reply.take(event):
                    yield text
        if connection.status != 200 or not reply.finish:
            raise ConnectionError("the vendor did not finish")
        if not connection.usable:
            raise ConnectionError("the vendor did not keep the connection alive")
        self._idle.append(connection)


class Floor:
    """The ASGI app."""

    def __init__(self, store: FloorStore, vendor: Vendor, secret: str) -> None:
        self._store = store
        self._vendor = vendor
        self._secret = secret
        self._pseudonym = pseudonyms(secret)
        self._instance_id = uuid_utils.uuid7().hex

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the process's life, or one request; uvicorn answers 500 for whatever is raised."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["path"] not in (BLOCKING, STREAM):
            await _answer(send, b"{}")
            return
        given = json.loads(await _body(receive))
        user_id, openid = await self._caller(scope["headers"])
        ask, messages = await self._claim(user_id, openid, given)
        serve = self._block if scope["path"] == BLOCKING else self._relay
        await serve(send, ask, messages)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await self._store.open(self._instance_id)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._store.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _caller(self, headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
        bearer = next(value for name, value in headers if name == b"authorization")
        claims = jwt.decode(
            bearer[7:], self._secret, algorithms=["HS256"], issuer="chatassist", audience="chatassist-client"
        )
        found = await self._store.login(claims["jti"])
        if found is None or found[1] != claims["sub"] or found[3]:
            raise PermissionError
        return str(found[1]), str(found[2])

    async def _claim(self, user_id: str, openid: str, given: Any) -> tuple[Ask, list[dict[str, str]]]:
        now = datetime.now(UTC)
        ask = Ask(
            user_id=user_id,
            session_id=given["sessionId"],
            message_id=uuid_utils.uuid7().hex,
            reply_id=uuid_utils.uuid7().hex,
            instance_id=self._instance_id,
            text=given["content"].strip(),
            at=_stored(now),
            subject=self._pseudonym(openid),
            day=now.astimezone(DAY_ZONE).date().isoformat(),
        )
        window = await self._store.claim(ask)
        messages = [{"role": "user", "content": ask.text}]
        left = HISTORY
        for *_, said, replied in window:
            if (left := left - len(said) - len(replied)) < 0:
                break
            messages += ({"role": "assistant", "content": replied}, {"role": "user", "content": said})
        return ask, messages[::-1]

    async def _finish(self, ask: Ask, reply: Reply) -> dict[str, Any]:
        """Store the end; return it as the wire shows it."""
        now, text = datetime.now(UTC), "".join(reply.text)
        counts = (reply.usage["prompt_tokens"], reply.usage["completion_tokens"])
        said = Said(reply.finish, text, reply.model, counts, _stored(now), len(reply.text) + 1)
        if not await self._store.finish(ask, said):
            raise RuntimeError("somebody else ended the reply")
        return {
            "reply": {"content": text, "time": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
            "status": "complete",
            "finishReason": reply.finish,
            "model": reply.model,
            "usage": {"inputTokens": counts[0], "outputTokens": counts[1]},
        }

    async def _block(self, send: Any, ask: Ask, messages: list[dict[str, str]]) -> None:
        reply = Reply()
        async for _ in self._vendor.stream(messages, reply):
            pass
        data = {**_ids(ask), **await self._finish(ask, reply), "aiGenerated": True, "replayed": False}
        envelope = {"code": 200, "message": "success", "data": data}
        await _answer(send, json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode())

    async def _relay(self, send: Any, ask: Ask, messages: list[dict[str, str]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
        start = json.dumps({**_ids(ask), "replayed": False})
        await _part(send, f"event: start\ndata: {start}\n\n")
        reply, number = Reply(), 0
        async for text in self._vendor.stream(messages, reply):
            number += 1
            await _part(send, f'id: {number}\nevent: delta\ndata: {{"text": {json.dumps(text)}}}\n\n')
        end = await self._finish(ask, reply)
        said = end.pop("reply")
        done = json.dumps({**end, "length": len(said["content"]), "time": said["time"]})
        await _part(send, f"id: {number + 1}\nevent: done\ndata: {done}\n\n", more=False)


def _ids(ask: Ask) -> dict[str, str]:
    return {"sessionId": ask.session_id, "messageId": ask.reply_id, "userMessageId": ask.message_id}


def _stored(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Any, body: bytes) -> None:
    headers = [*_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _part(send: Any, event: str, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": event.encode(), "more_body": more})


def main(port: str, database: str, vendor_port: str, secret: str, pool_size: str) -> None:
    """Serve until SIGTERM."""
    app = Floor(open_store(make_url(database), int(pool_size)), Vendor(int(vendor_port)), secret)
    uvicorn.run(
        app, host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", ws="none", lifespan="on",
        log_level="warning", access_log=False, backlog=2048, server_header=False, proxy_headers=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
