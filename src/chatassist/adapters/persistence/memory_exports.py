"""Everything kept about a user, out of dictionaries."""

from collections.abc import Sequence
from datetime import date

from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.model import Login, Session
from chatassist.domain.ports.exports import Day, Entry, Exports, Page
from chatassist.domain.turns import Turn


class MemoryExports(Exports):
    """Looks through everything: what one process holds is little."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def days(self, subject: str, after: date, limit: int) -> Sequence[Day]:
        """Return days of a subject."""
        found = (
            Day(day=meter.day, used=used)
            for meter, used in self._tables.usages.items()
            if meter.subject == subject and meter.day > after
        )
        return sorted(found, key=lambda day: day.day)[:limit]

    async def logins(self, user_id: str, after: str, limit: int) -> Sequence[Login]:
        """Return logins of a user."""
        found = (one for one in self._tables.logins.values() if one.user_id == user_id and one.id > after)
        return sorted(found, key=lambda login: login.id)[:limit]

    async def sessions(self, user_id: str, after: str, limit: int) -> Sequence[Session]:
        """Return sessions of a user."""
        own = (one for one in self._tables.sessions.values() if one.user_id == user_id and one.deletion_id is None)
        return sorted((one for one in own if one.id > after), key=lambda session: session.id)[:limit]

    async def entries(self, session: Session, after: tuple[int, int], room: int) -> Page:
        """Return entries of a session."""
        coming = [entry for entry in self._entries(session.id) if entry.place > after]
        count, size = 0, 0
        for entry in coming:
            size += _bytes(entry)
            if count and size > room:
                break
            count += 1
        return Page(entries=coming[:count], more=count < len(coming))

    def _entries(self, session_id: str) -> Sequence[Entry]:
        turns = [self._tables.turns[reply_id] for reply_id in self._tables.order.get(session_id, ())]
        shown: dict[int, Turn] = {}
        for turn in turns:  # oldest version first
            known = shown.get(turn.message.position)
            if known is None or turn.reply.good or not known.reply.good:
                shown[turn.message.position] = turn
        entries: list[Entry] = []
        for turn in turns:
            at = turn.message.position
            if not entries or entries[-1].position != at:
                entries.append(Entry(position=at, said=turn.message))
            entries.append(Entry(position=at, said=turn.reply, shown=shown[at].reply.id == turn.reply.id))
        return entries


def _bytes(entry: Entry) -> int:
    thinking = getattr(entry.said, "thinking", "")
    return len((entry.said.content + thinking).encode())
