"""Looking through what is kept, in dictionaries. Here a page costs what its whole list costs."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from chatassist.adapters.persistence.memory_chats import MemoryTurns
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.history import Place, Stretch
from chatassist.domain.model import Session
from chatassist.domain.ports.archive import Archive, Mark
from chatassist.domain.turns import Turn


class MemoryArchive(Archive):
    """`Archive` over tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def sessions(self, user_id: str, mark: Mark, limit: int, *, keyword: str = "") -> Sequence[Session]:
        """Return the first sessions behind the mark."""
        everybodys = self._tables.sessions.values()
        own = [one for one in everybodys if one.user_id == user_id and one.listed_at and keyword in one.title]
        behind = [one for one in own if _rank(Mark.behind(one)) < _rank(mark)]
        return sorted(behind, key=lambda one: _rank(Mark.behind(one)), reverse=True)[:limit]

    async def place(self, session_id: str, message_id: str) -> Place | None:
        """Return where a message stands."""
        for turn in self._of(session_id):
            if message_id in (turn.message.id, turn.reply.id):
                return Place(position=turn.message.position, is_reply=message_id == turn.reply.id)
        return None

    async def turns(self, session_id: str, stretch: Stretch) -> Sequence[Turn]:
        """Return turns in the version they show."""
        shown = await MemoryTurns(self._tables).latest(session_id, len(self._of(session_id)))
        at = stretch.position
        if stretch.older:
            return [turn for turn in shown if at is None or turn.message.position <= at][-stretch.limit :]
        return [turn for turn in shown if at is None or turn.message.position >= at][: stretch.limit]

    async def versions(self, session_id: str, first: int, last: int) -> Mapping[int, Sequence[str]]:
        """Return the ids of versions by position."""
        found: dict[int, list[str]] = {}
        for turn in self._of(session_id):  # by position and version
            if first <= turn.message.position <= last:
                found.setdefault(turn.message.position, []).append(turn.reply.id)
        return found

    def _of(self, session_id: str) -> Sequence[Turn]:
        return [self._tables.turns[reply_id] for reply_id in self._tables.order.get(session_id, ())]


def _rank(mark: Mark) -> tuple[bool, datetime, str]:
    return mark.pinned, mark.at, mark.session_id
