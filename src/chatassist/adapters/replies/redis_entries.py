"""How a reply lies in Redis: one stream, whose entries are named for the numbers of events, and sealed.

An entry `<n>-0` holds the events up to number n, one after the other; `<n>-1` says that an attempt was opened after n.
As names only grow, Redis itself refuses a writer that was overtaken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, assert_never

from chatassist.adapters.redis import PREFIX, Command
from chatassist.adapters.seal import Seal
from chatassist.domain.ports.replies import Delta, Ended, Event, Replace, Thinking, Titled
from chatassist.domain.turns import End, FinishReason, Status, Usage

KEYS = f"{PREFIX}reply:"
KEPT_ENTRIES = 512
RUNNING_SECONDS = 900
ENDED_SECONDS = 90
_EVENTS, _OPENED = b"e", "o"

Entry = tuple[bytes, Mapping[bytes, bytes]]


def key_of(reply_id: str) -> str:
    """Return where a reply's stream lies."""
    return f"{KEYS}{reply_id}"


def reply_of(key: bytes) -> str:
    """Return whose stream lies there."""
    return key[len(KEYS) :].decode()


def opening(reply_id: str, after: int) -> Command:
    """Return the command that tells of an attempt whose first event has number `after` + 1."""
    return _add(reply_id, f"{after}-1", _OPENED, b"")


def addition(seal: Seal, reply_id: str, last: int, events: Sequence[Event]) -> Command:
    """Return the command that adds events, the last of which has number `last`."""
    plain = json.dumps([_packed(event) for event in events], ensure_ascii=False, separators=(",", ":"))
    place = _place(reply_id, last)
    return _add(reply_id, f"{last}-0", _EVENTS, seal.seal(plain.encode("utf-8", "surrogatepass"), place))


def keeping(reply_id: str, seconds: int) -> Command:
    """Return the command that keeps a stream for so long from now."""
    return "PEXPIRE", key_of(reply_id), seconds * 1000


def number_of(entry: Entry) -> tuple[int, bool]:
    """Return the number in an entry's name, and whether it tells of an opening."""
    number, _, part = entry[0].partition(b"-")
    return int(number), part == b"1"


def events_of(seal: Seal, reply_id: str, entry: Entry) -> Sequence[Event] | None:
    """Return an entry's events; None when it cannot be opened, or comes from another version of us."""
    number, _ = number_of(entry)
    plain = seal.open(entry[1].get(_EVENTS, b""), _place(reply_id, number))
    if plain is None:
        return None
    try:
        return [_unpacked(item) for item in json.loads(plain.decode("utf-8", "surrogatepass"))]
    except (ValueError, TypeError, KeyError):
        return None


def _add(reply_id: str, name: str, field: str | bytes, value: bytes) -> Command:
    return "XADD", key_of(reply_id), "MAXLEN", "~", KEPT_ENTRIES, name, field, value


def _place(reply_id: str, number: int) -> bytes:
    return f"{reply_id}/{number}".encode()


def _packed(event: Event) -> str | list[Any]:
    match event:
        case Delta(text):
            return text  # by far the most
        case Thinking(text):
            return ["t", text]
        case Replace(content, reason):
            return ["r", content, reason]
        case Titled(session_id, title):
            return ["n", session_id, title]
        case Ended(end):
            return ["e", asdict(end) | {"at": end.at.isoformat()}]
        case unknown:
            assert_never(unknown)


def _unpacked(item: str | list[Any]) -> Event:
    match item:
        case str(text):
            return Delta(text)
        case ["t", str(text)]:
            return Thinking(text)
        case ["r", str(content), str(reason)]:
            return Replace(content, reason)
        case ["n", str(session_id), str(title)]:
            return Titled(session_id, title)
        case ["e", {**end}]:
            return Ended(_end(end))
    raise ValueError("an event of another version")


def _end(row: dict[Any, Any]) -> End:
    usage = row["usage"]
    known = {
        "status": Status(row["status"]),
        "finish_reason": FinishReason(row["finish_reason"]),
        "at": datetime.fromisoformat(row["at"]),
        "usage": Usage(**usage) if usage else None,
    }
    return End(**row | known)
