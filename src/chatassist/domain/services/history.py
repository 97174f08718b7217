"""What was said in a session, page by page, as it stands at this moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chatassist.domain.errors import BadCursor, MessageNotFound
from chatassist.domain.history import Cut, Entry, Leaf, Place, Shown
from chatassist.domain.model import Session, is_id
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.replies.follow import Follower
from chatassist.domain.turns import Message, Status, Turn

Item = Message | Shown
"""What a page shows: a question, or a turn for its reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a session's history, oldest first. `settled`: what changes on it raises the session's revision."""

    items: Sequence[Item]
    more_before: bool
    more_after: bool
    settled: bool


class HistoryService:
    """Shows what is kept; what is not lives in no history."""

    def __init__(self, store: Store, follower: Follower) -> None:
        self._store = store
        self._follower = follower

    async def page(self, session: Session, *, limit: int, anchor: str | None = None, older: bool = True) -> Page:
        """Return `limit` messages of a session that was just looked at, right before an anchor or right after it.

        The anchor is the id of a question, or of any version of a reply; without one, the newest messages are returned.
        What is being made shows its text so far. Raises BadCursor.
        """
        if anchor is not None and not is_id(anchor):
            raise BadCursor

        async def look(tx: Transaction) -> tuple[Cut, Mapping[int, Sequence[str]]]:
            place = await _place(tx, session.id, anchor)
            leaf = Leaf(limit=limit, anchor=place, older=older)
            cut = leaf.cut(await tx.archive.turns(session.id, leaf.stretch))
            positions = [entry.place.position for entry in cut.entries]
            versions = await tx.archive.versions(session.id, positions[0], positions[-1]) if positions else {}
            return cut, versions

        cut, versions = await self._store.read(look)
        items = [await self._item(entry, versions) for entry in cut.entries]
        running = session.running > 0 or any(_runs(entry) for entry in cut.entries)
        return Page(
            items=[item for item in items if item is not None],
            more_before=cut.more_before,
            more_after=cut.more_after,
            settled=not running,
        )

    async def _item(self, entry: Entry, versions: Mapping[int, Sequence[str]]) -> Item | None:
        """Return what is shown; None where it was deleted this very moment."""
        if not entry.is_reply:
            return entry.turn.message
        turn = await self._now(entry.turn) if _runs(entry) else entry.turn
        return None if turn is None else Shown(turn=turn, versions=versions.get(entry.place.position, ()))

    async def _now(self, turn: Turn) -> Turn | None:
        try:
            stored = await self._follower.stored(turn.reply.id, turn.message.user_id)
            running = stored.reply.status is Status.RUNNING
            return await self._follower.settle(stored, 0.0) if running else stored
        except MessageNotFound:
            return None


async def _place(tx: Transaction, session_id: str, anchor: str | None) -> Place | None:
    if anchor is None:
        return None
    place = await tx.archive.place(session_id, anchor)
    if place is None:
        raise BadCursor
    return place


def _runs(entry: Entry) -> bool:
    return entry.is_reply and entry.turn.reply.status is Status.RUNNING
