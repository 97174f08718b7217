"""What is deleted, in dictionaries. The store's lock already keeps other writers out."""

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.ports.erasing import PORTION, Deletion, Deletions, Erasures, Jobs
from chatassist.domain.turns import Status, Turn

_LONG_PAST = datetime(1970, 1, 1, tzinfo=UTC)


class MemoryDeletions(Deletions):
    """`Deletions` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def running(self, user_id: str, within: str | None = None) -> Sequence[Turn]:
        """Return what runs."""
        sessions = (one for one in self._tables.sessions.values() if one.user_id == user_id)
        meant = [one for one in sessions if within is None or within in (one.id, one.deletion_id)]
        replies = (reply_id for one in meant for reply_id in self._tables.order.get(one.id, ()))
        turns = (self._tables.turns[reply_id] for reply_id in replies)
        return [turn for turn in turns if turn.reply.status is Status.RUNNING]

    async def add(self, deletion: Deletion) -> Deletion | None:
        """Delete sessions."""
        kept = (one for one in self._tables.sessions.values() if one.user_id == deletion.user_id)
        meant = (one for one in kept if deletion.session_id in (None, one.id) and one.deletion_id is None)
        if not (gone := list(meant)):
            return None
        for session in gone:
            self._tables.sessions[session.id] = replace(session.revised(), deletion_id=deletion.id)
        counted = replace(deletion, sessions=len(gone), messages=sum(one.messages for one in gone))
        self._tables.deletions[deletion.id] = counted
        return counted

    async def find(self, user_id: str, session_id: str | None, now: datetime) -> Deletion | None:
        """Return a deletion that can be undone."""
        if session_id is None:
            own = (one for one in self._tables.deletions.values() if one.user_id == user_id and not one.session_id)
            found = max((one for one in own if one.sessions), key=lambda one: one.id, default=None)
        else:
            session = self._tables.sessions.get(session_id)
            known = session.deletion_id if session and session.user_id == user_id else None
            found = self._tables.deletions.get(known or "")
        return found if found and found.until > now else None

    async def hold(self, deletion_id: str, user_id: str) -> Deletion | None:
        """Return a deletion."""
        found = self._tables.deletions.get(deletion_id)
        return found if found and found.user_id == user_id else None

    async def undo(self, deletion: Deletion) -> int:
        """Bring sessions back."""
        gone = [one for one in self._tables.sessions.values() if one.deletion_id == deletion.id]
        for session in gone:
            self._tables.sessions[session.id] = replace(session.revised(), deletion_id=None)
        self._tables.deletions[deletion.id] = replace(deletion, sessions=0, messages=0)
        return len(gone)


class MemoryErasures(Erasures):
    """Drops what has to go."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def begin(self, user_id: str, at: datetime) -> bool:
        """Delete a user and his logins."""
        user = self._tables.users.pop(user_id, None)
        if user is None:
            return False
        del self._tables.openids[user.openid]
        _drop(self._tables.logins, [one.id for one in self._tables.logins.values() if one.user_id == user_id])
        self._tables.erasures[user_id] = at
        return True

    async def unfinished(self, before: datetime) -> str | None:
        """Return a deleted user."""
        return next((user_id for user_id, at in self._tables.erasures.items() if at < before), None)

    async def erase_account(self, user_id: str) -> bool:
        """Drop a portion of sessions, and then the rest at once."""
        sessions = [one.id for one in self._tables.sessions.values() if one.user_id == user_id]
        if self._erase(sessions):
            return True
        tables = self._tables
        _drop(tables.spent, [key for key in tables.spent if key[0] == user_id])
        _drop(tables.deletions, [one.id for one in tables.deletions.values() if one.user_id == user_id])
        _drop(tables.logins, [one.id for one in tables.logins.values() if one.user_id == user_id])
        tables.erasures.pop(user_id, None)
        return False

    async def overdue(self, now: datetime) -> str | None:
        """Return a deletion, after putting it beyond recall."""
        over = [one for one in self._tables.deletions.values() if one.until <= now]
        if not over:
            return None
        first = min(over, key=lambda one: one.until)
        self._tables.deletions[first.id] = replace(first, until=_LONG_PAST)
        return first.id

    async def erase_deletion(self, deletion_id: str) -> bool:
        """Drop a portion of sessions."""
        gone = [one.id for one in self._tables.sessions.values() if one.deletion_id == deletion_id]
        if self._erase(gone):
            return True
        self._tables.deletions.pop(deletion_id, None)
        return False

    def _erase(self, sessions: Sequence[str]) -> bool:
        """Drop a portion of turns, and each session once it is empty; False when there is nothing to drop."""
        left = PORTION
        for session_id in sessions:
            turns = [self._tables.turns[each] for each in self._tables.order.get(session_id, ())]
            self._erase_turns(session_id, turns[:left])
            if len(turns) > left:
                return True
            left -= len(turns)
            del self._tables.sessions[session_id]
            self._tables.order.pop(session_id, None)
        return bool(sessions)

    def _erase_turns(self, session_id: str, turns: Sequence[Turn]) -> None:
        for turn in turns:
            del self._tables.turns[turn.reply.id]
            self._tables.keys.pop((turn.message.user_id, turn.reply.key or ""), None)
        self._tables.order[session_id] = self._tables.order.get(session_id, ())[len(turns) :]


class MemoryJobs(Jobs):
    """`Jobs` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def take(self, name: str, owner: str, now: datetime, until: datetime) -> bool:
        """Take a job that is free."""
        holder, over = self._tables.jobs.get(name, (owner, now))
        if holder != owner and over > now:
            return False
        self._tables.jobs[name] = (owner, until)
        return True


def _drop(table: MutableMapping[Any, Any], keys: Iterable[Any]) -> None:
    for key in keys:
        del table[key]
