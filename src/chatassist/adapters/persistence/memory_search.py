"""Searching in dictionaries: all that a user said is walked through, which is well where there is little."""

from chatassist.adapters.persistence.memory_chats import MemoryTurns
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.model import Session
from chatassist.domain.ports.persistence import MAX_POSITION
from chatassist.domain.ports.search import Hit, Looked, Search
from chatassist.domain.search import SHOWN, excerpt_start, snippet_of
from chatassist.domain.turns import Turn


class MemorySearch(Search):
    """`Search` in dictionaries."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def look(self, user_id: str, keyword: str, *, before: str | None, messages: int, limit: int) -> Looked:
        """Look through the user's youngest messages."""
        ids = sorted(self._ids(user_id), reverse=True)
        older = [each for each in ids if before is None or each < before]
        hits = await self._hits(user_id, keyword)
        found = [hits[each] for each in older[:messages] if each in hits]
        return Looked(hits=found[:limit], down_to=older[messages - 1] if len(older) >= messages else None)

    def _ids(self, user_id: str) -> set[str]:
        own = [turn for turn in self._tables.turns.values() if turn.message.user_id == user_id]
        return {turn.message.id for turn in own} | {turn.reply.id for turn in own}

    async def _hits(self, user_id: str, keyword: str) -> dict[str, Hit]:
        """Return all there are, by message."""
        hits: list[Hit] = []
        for session in list(self._tables.sessions.values()):
            if session.user_id == user_id and session.listed_at is not None:
                for turn in await MemoryTurns(self._tables).latest(session.id, MAX_POSITION):
                    hits += _in_turn(session, turn, keyword)
        return {hit.message_id: hit for hit in hits}


def _in_turn(session: Session, turn: Turn, keyword: str) -> list[Hit]:
    said, reply = turn.message, turn.reply
    times = {said.id: said.created_at, reply.id: reply.ended_at or reply.created_at}
    return [
        Hit(session_id=session.id, title=session.title, message_id=message_id, snippet=snippet, at=times[message_id])
        for message_id, text in ((said.id, said.content), (reply.id, reply.content))
        if (snippet := _snippet(text, keyword)) is not None
    ]


def _snippet(text: str, keyword: str) -> str | None:
    at = text.find(keyword)
    start = excerpt_start(at)
    return None if at < 0 else snippet_of(text[start : start + SHOWN + 1], at)
