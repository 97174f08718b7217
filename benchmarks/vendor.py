"""The loopback vendor: a process that streams chat completions at the pace its caller asks for, at next to no cost.

A reply without gaps leaves in one write, so that a CPU figure does not depend on how the network cut it; with gaps,
every piece is a write of its own. Recordings are not listened to, and answered at once. `GET /held` says how many
replies are open and how many pieces were ever said.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import cache
from typing import cast

import httptools
import uvloop

from benchmarks.script import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, Pace, spoken

_HEARD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"text":"ok"}'
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _event(data: str) -> bytes:
    """Return one server-sent event as one HTTP chunk."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    said = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_767_225_600, "model": MODEL}
    return _event(json.dumps({**said, "choices": [choice], **more}, ensure_ascii=False, separators=(",", ":")))


@cache
def _said(pieces: int) -> tuple[bytes, ...]:
    return tuple(_chunk({"content": piece}) for piece in spoken(pieces))


@cache
def _end() -> bytes:
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
    usage["total_tokens"] = sum(usage.values())
    return _chunk({}, "stop", usage=usage) + _event("[DONE]") + b"0\r\n\r\n"


@cache
def whole(pieces: int) -> bytes:
    """Return head and body of an answer without pauses."""
    return b"".join((_HEAD, *_said(pieces), _end()))


class Counts:
    """What `GET /held` tells."""

    held = 0
    said = 0


class VendorProtocol(asyncio.Protocol):
    """One caller's connection, kept alive; a caller does not pipeline."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = b""
        self._pending: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop speaking to nobody."""
        self._transport = None
        if self._pending is not None:
            self._pending.cancel()
            self._over()

    def data_received(self, data: bytes) -> None:
        """Parse; the parser calls the `on_…` below."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Note the path."""
        self._path, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """Note a part of the body, but for recordings."""
        if not self._hears:
            self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if self._path == b"/held":
            counts = b"%d %d" % (self._counts.held, self._counts.said)
            self._write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(counts), counts))
            return
        if self._hears:
            self._write(_HEARD)
            return
        pace = Pace.asked(self._body)
        self._counts.held += 1
        self._in(pace.first, self._begin, pace)

    @property
    def _hears(self) -> bool:
        return self._path.endswith(b"/audio/transcriptions")

    def _in(self, milliseconds: int, call: Callable[..., None], *arguments: object) -> None:
        if milliseconds:
            self._pending = asyncio.get_running_loop().call_later(milliseconds / 1000, call, *arguments)
        else:
            call(*arguments)

    def _begin(self, pace: Pace) -> None:
        if pace.gap:
            self._write(_HEAD)
            self._speak(pace, 0)
            return
        self._counts.said += pace.pieces
        self._write(whole(pace.pieces))
        self._over()

    def _speak(self, pace: Pace, number: int) -> None:
        self._counts.said += 1
        last = number + 1 == pace.pieces
        self._write(_said(pace.pieces)[number] + (_end() if last else b""))
        if last:
            self._over()
        else:
            self._in(pace.gap, self._speak, pace, number + 1)

    def _over(self) -> None:
        self._pending = None
        self._counts.held -= 1

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(
        lambda: VendorProtocol(counts), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
