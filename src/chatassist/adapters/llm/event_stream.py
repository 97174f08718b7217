"""Bytes to events: the part of server-sent events that chat vendors use. Knows nothing of JSON or of chat.

An event is the joined `data` lines before a blank line. Lines end in LF or CRLF; comments and other fields are dropped.
A body that is one JSON document, from vendors and gateways that do not stream, is handed out whole as one event.
"""

from collections.abc import Iterator

from chatassist.domain.errors import LlmUnavailable

_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Splits a body that arrives cut anywhere; holds at most `max_event` bytes."""

    def __init__(self, *, max_event: int) -> None:
        self._max_event = max_event
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._started = False
        self._document = False

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Yield the events that `part` completes. Raises LlmUnavailable when one grows beyond all bounds."""
        if not self._started:
            part = self._start(part)
        if self._document or b"\n" not in part:
            self._line += part
            self._bound()
            return
        lines = (self._line + part if self._line else part).split(b"\n")
        self._line = bytearray(lines.pop())
        for line in lines:
            if (event := self._take(line)) is not None:
                yield event
        self._bound()

    def end(self) -> Iterator[bytes]:
        """Yield what the body's end completes: vendors leave out the last newlines."""
        line, self._line = bytes(self._line), bytearray()
        if self._document:
            yield line
            return
        for last in (line, b""):
            if (event := self._take(last)) is not None:
                yield event

    def _start(self, part: bytes) -> bytes:
        # DeepSeek sends blank lines for minutes before a document; no event stream begins with a bracket.
        begun = (bytes(self._line) + part).lstrip(b" \t\r\n").removeprefix(_BOM)
        if len(begun) < len(_BOM) and _BOM.startswith(begun):
            self._line = bytearray(begun)
            return b""
        self._line.clear()
        self._started = True
        self._document = begun[:1] in (b"{", b"[")
        return begun

    def _take(self, line: bytes | bytearray) -> bytes | None:
        """Keep a line; return the event that it ends."""
        line = bytes(line.removesuffix(b"\r"))
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._held += len(line)
            self._bound()
        elif not line and self._data:
            event, self._data, self._held = b"\n".join(self._data), [], 0
            return event
        return None

    def _bound(self) -> None:
        if len(self._line) + self._held > self._max_event:
            self._line, self._data, self._held = bytearray(), [], 0
            msg = "one event of the vendor's answer is too large"
            raise LlmUnavailable(msg)
