"""An unsaved session as it lies in Redis: one sealed document with its turns, and the index keys that lead to it.

Index keys hold ids alone. The client's own key of a turn is only there as a hash.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from chatassist.adapters.redis import PREFIX, Command
from chatassist.adapters.seal import Seal
from chatassist.domain.model import Session, TitleSource
from chatassist.domain.turns import Feedback, FinishReason, Message, Rating, Reply, Status, Turn, Usage

_UNSAVED = f"{PREFIX}unsaved:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A session with its turns by position and version. `spent`: keys of its turns that were deleted, and when."""

    session: Session
    turns: Sequence[Turn] = ()
    spent: Mapping[str, datetime] = field(default_factory=dict)

    def outlives(self, earlier: "Document | None") -> bool:
        """Whether its time begins anew: it is new, or a turn was accepted, restarted or ended."""
        if earlier is None or self.session.updated_at != earlier.session.updated_at:
            return True
        before = {turn.reply.id: turn.reply for turn in earlier.turns}
        known = [(before.get(turn.reply.id), turn.reply) for turn in self.turns]
        return any(old is None or old.status is not new.status for old, new in known)


def session_key(session_id: str) -> str:
    """Return where a document lies."""
    return f"{_UNSAVED}session:{session_id}"


def reply_key(reply_id: str) -> str:
    """Return where the session id of a reply lies."""
    return f"{_UNSAVED}reply:{reply_id}"


def turn_key(user_id: str, key: str) -> str:
    """Return where the session id of the turn under a user's key lies."""
    return f"{_UNSAVED}key:{sha256(f'{user_id}/{key}'.encode()).hexdigest()}"


def changes(seal: Seal, document: Document, earlier: Document | None, seconds: float) -> Sequence[Command]:
    """Return the commands that carry `earlier` over into `document`, to be kept for so long if it begins anew."""
    session = document.session
    where, sealed = session_key(session.id), _sealed(seal, document)
    gone = {turn.reply.id for turn in earlier.turns} if earlier else set()
    gone -= {turn.reply.id for turn in document.turns}
    removals: list[Command] = [("DEL", reply_key(reply_id)) for reply_id in gone]
    if not document.outlives(earlier):
        return [("SET", where, sealed, "KEEPTTL"), *removals]
    replies = [turn.reply for turn in document.turns]
    keys = [*(reply.key for reply in replies if reply.key is not None), *document.spent]
    leading = [*(reply_key(reply.id) for reply in replies), *(turn_key(session.user_id, key) for key in keys)]
    kept = ("PX", round(seconds * 1000))
    return [("SET", where, sealed, *kept), *(("SET", each, session.id, *kept) for each in leading), *removals]


def opened(seal: Seal, session_id: str, sealed: bytes | None) -> Document | None:
    """Return the document; None when there is none, it cannot be opened, or it is another version's."""
    plain = sealed and seal.open(sealed, session_id.encode())
    if not plain:
        return None
    try:
        return _document(json.loads(plain.decode("utf-8", "surrogatepass")))
    except (ValueError, TypeError, KeyError):
        return None


def _sealed(seal: Seal, document: Document) -> bytes:
    row = {
        "session": asdict(document.session),
        "turns": [asdict(turn) for turn in document.turns],
        "spent": dict(document.spent),
    }
    plain = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=datetime.isoformat)
    return seal.seal(plain.encode("utf-8", "surrogatepass"), document.session.id.encode())


def _document(row: Mapping[str, Any]) -> Document:
    return Document(
        session=_session(_timed(row["session"], "created_at", "updated_at")),
        turns=tuple(_turn(each) for each in row["turns"]),
        spent=_timed(row["spent"], *row["spent"]),
    )


def _session(row: dict[str, Any]) -> Session:
    return Session(**row | {"title_source": TitleSource(row["title_source"])})


def _turn(row: dict[str, Any]) -> Turn:
    message = Message(**_timed(row["message"], "created_at"))
    return Turn(**row | {"message": message, "reply": _reply(_timed(row["reply"], "created_at", "ended_at"))})


def _reply(row: dict[str, Any]) -> Reply:
    usage, feedback = row["usage"], row["feedback"]
    row["status"] = Status(row["status"])
    row["finish_reason"] = FinishReason(row["finish_reason"]) if row["finish_reason"] else None
    row["usage"] = Usage(**usage) if usage else None
    row["feedback"] = Feedback(rating=Rating(feedback["rating"]), comment=feedback["comment"]) if feedback else None
    return Reply(**row)


def _timed(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the row with these texts as times."""
    return row | {name: datetime.fromisoformat(row[name]) for name in names if row[name] is not None}
