"""One structured line per decision: JSON in production, readable in development; never an exception's own words.

What a library puts into an exception (an URL with a secret, SQL with a message in it) is not ours to print, so of an
exception only the classes and the places are logged.
"""

import json
import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

_QUIET = (
    "httpx2",
    "httpcore2",
    "openai",
    "sqlalchemy",
    "alembic",
    "aiosqlite",
    "asyncmy",
    "aiomysql",
    "asyncio",
    "faster_whisper",
)
"""Libraries that log URLs, statements or bodies below WARNING (httpx2 prints WeChat's secret at INFO)."""


def configure(*, as_json: bool, quiet: bool = False) -> None:
    """Send every log line of the process to standard error in one form; `quiet` leaves out what is no trouble."""
    # Nobody reads it, at 8 µs a line: the library's own way to say so (its HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as documented there
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    quieten()


def formatter(*, as_json: bool) -> logging.Formatter:
    """Return what turns any record, a library's too, into one of our lines."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_json)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    return _Lines(
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _places_only,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        renderer,
    )


class _Lines(logging.Formatter):
    """structlog's processors over the standard library's records, at half the price of its own ProcessorFormatter."""

    def __init__(self, *processors: structlog.typing.Processor) -> None:
        super().__init__()
        self._processors = processors

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line."""
        event: Any = {"event": record.getMessage(), "_record": record, "_from_structlog": False}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for process in self._processors:
            event = process(None, record.levelname.lower(), event)
        return str(event)


_encode = json.JSONEncoder(ensure_ascii=False, default=repr).encode  # made once: it costs more than what it does


def _json(event: Any, **_: Any) -> str:
    return _encode(event)


def quieten() -> None:
    """Let libraries speak of trouble only."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its tracebacks after a cancelled query are noise: the pool has already thrown the connection away.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.access").disabled = True


def _places_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace exception info by the classes and places of the whole chain."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    chain: list[str] = []
    while isinstance(error, BaseException) and len(chain) < 10:
        last = traceback.extract_tb(error.__traceback__)[-5:]
        places = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in last[::-1])
        chain.append(f"{type(error).__module__}.{type(error).__qualname__} at {places}")
        error = error.__cause__ or error.__context__
    if chain:
        event["error"] = chain
    event.pop("color_message", None)  # uvicorn's, for its own formatter
    return event
