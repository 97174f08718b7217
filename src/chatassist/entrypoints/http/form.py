"""Reads a form with one file, in memory and under caps, while it arrives. Nothing is written to a disk.

Not FastAPI's own: that reads before it asks who is calling, takes a charset from the sender, and spools to files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from chatassist.entrypoints.http.envelope import FormInvalid

MAX_PARTS = 8
MAX_TEXT = 8 * 1024  # bytes of one text field


@dataclass(slots=True)
class Form:
    """What came: files and texts by field name."""

    files: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class FileTooLarge(Exception):
    """The file has more bytes than allowed."""


class NoRoom(Exception):
    """As many bytes of files as allowed are held by now."""


class Room:
    """How many bytes all files may have that are held at a time, by however many requests."""

    def __init__(self, size: int) -> None:
        self.free = size

    def share(self) -> "Share":
        """Return what one request takes of it; left when its block ends."""
        return Share(self)


class Share:
    """What one request holds of a room, which grows as its bytes come: who only announces them takes nothing."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0

    def take(self, size: int) -> None:
        """Take so much more. Raises NoRoom."""
        if size > self._room.free:
            raise NoRoom
        self._room.free -= size
        self._taken += size

    def __enter__(self) -> Self:
        """Begin with nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give all of it back."""
        self._room.free += self._taken
        self._taken = 0


@dataclass(slots=True)
class _Part:
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)


async def read_form(request: Request, *, max_file: int, take: Callable[[int], None]) -> Form:
    """Return the form that the request's body is; `max_file`: bytes. `take` is told of each byte of a file.

    Raises FormInvalid, FileTooLarge, and what `take` does.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise FormInvalid
    reader = _Reader(max_file, take)
    try:
        parser = reader.parser(boundary)
        async for chunk in request.stream():
            parser.write(chunk)
    except (FormParserError, ClientDisconnect) as exc:
        raise FormInvalid from exc
    if not reader.ended:
        raise FormInvalid
    return reader.form


class _Reader:
    """Hears of each piece from the parser, and keeps what is wanted."""

    def __init__(self, max_file: int, take: Callable[[int], None]) -> None:
        self.form = Form()
        self.ended = False
        self._max_file = max_file
        self._take = take
        self._parts = 0
        self._part = _Part()

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._part.header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._part.value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._keep,
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._part = _Part()
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise FormInvalid

    def _header(self) -> None:
        part = self._part
        if bytes(part.header).lower() == b"content-disposition":
            part.disposition = bytes(part.value)
        part.header.clear()
        part.value.clear()

    def _headers(self) -> None:
        _, options = parse_options_header(self._part.disposition.decode("latin-1"))
        if b"name" not in options:
            raise FormInvalid
        self._part.name = _text(options[b"name"])
        self._part.is_file = b"filename" in options
        if self._part.is_file and self.form.files:
            raise FormInvalid

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.data += memoryview(data)[start:end]
        if len(part.data) > (self._max_file if part.is_file else MAX_TEXT):
            raise FileTooLarge if part.is_file else FormInvalid
        if part.is_file:
            self._take(end - start)

    def _keep(self) -> None:
        part, form = self._part, self.form
        if part.is_file:
            form.files[part.name] = bytes(part.data)
        elif part.name in form.texts:
            raise FormInvalid
        else:
            form.texts[part.name] = _text(bytes(part.data))
        part.data = bytearray()

    def _end(self) -> None:
        self.ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise FormInvalid from exc
