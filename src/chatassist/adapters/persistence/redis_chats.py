"""Sessions, turns and replies over documents in Redis: what a call is about is loaded first, then it runs in memory."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from chatassist.adapters.persistence.memory_chats import MemoryReplies, MemorySessions, MemoryTurns
from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.adapters.persistence.redis_documents import (
    Document,
    changes,
    opened,
    reply_key,
    session_key,
    turn_key,
)
from chatassist.adapters.redis import Command
from chatassist.adapters.seal import Seal
from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Session
from chatassist.domain.ports.persistence import MAX_POSITION, Replies, Sessions, Turns, Version, Window
from chatassist.domain.turns import End, Feedback, Saved, Turn
from chatassist.domain.usage import Meter

_FENCE_SECONDS = 60


@dataclass(slots=True)
class Loaded:
    """What a unit of work has looked at. `fetch` gives keys' values."""

    fetch: Callable[[Sequence[str]], Awaitable[Sequence[bytes | None]]]
    seal: Seal
    tables: Tables = field(default_factory=Tables)
    _leads: dict[str, bytes | None] = field(default_factory=dict)
    _seen: dict[str, Document | None] = field(default_factory=dict)
    _fences: list[Command] = field(default_factory=list)

    async def session(self, *session_ids: str) -> None:
        """Load sessions with all their turns, as far as there are any."""
        new = sorted(set(session_ids) - self._seen.keys())
        values = await self.fetch([session_key(each) for each in new]) if new else ()
        for session_id, sealed in zip(new, values, strict=True):
            self._seen[session_id] = document = opened(self.seal, session_id, sealed)
            if document:
                self._hold(document)

    def _hold(self, document: Document) -> None:
        tables, session_id, user_id = self.tables, document.session.id, document.session.user_id
        tables.sessions[session_id] = document.session
        tables.order[session_id] = tuple(turn.reply.id for turn in document.turns)
        for turn in document.turns:
            tables.turns[turn.reply.id] = turn
            if turn.reply.key is not None:
                tables.keys[user_id, turn.reply.key] = turn.reply.id
        tables.spent.update({(user_id, key): at for key, at in document.spent.items()})

    async def reply(self, *reply_ids: str) -> None:
        """Load the sessions of replies."""
        await self._behind([reply_key(each) for each in reply_ids])

    async def key(self, user_id: str, key: str) -> None:
        """Load the session of the turn under a user's key."""
        await self._behind([turn_key(user_id, key)])

    def fence(self, reply_id: str) -> None:
        """Let a unit fail that is about to add this reply, and that may still be on its way to Redis."""
        self._fences.append(("SET", reply_key(reply_id), "", "EX", _FENCE_SECONDS))

    def changes(self, seconds: float) -> Sequence[Command]:
        """Return the commands for everything that changed since it was loaded."""
        commands = list(self._fences)
        for session_id, session in self.tables.sessions.items():
            earlier = self._seen.get(session_id)
            document = self._document(session, earlier)
            if document != earlier:
                commands += changes(self.seal, document, earlier, seconds)
        return commands

    async def _behind(self, keys: Sequence[str]) -> None:
        new = [key for key in keys if key not in self._leads]
        if new:
            self._leads.update(zip(new, await self.fetch(new), strict=True))
        await self.session(*(lead.decode() for key in keys if (lead := self._leads[key])))

    def _document(self, session: Session, earlier: Document | None) -> Document:
        tables = self.tables
        turns = tuple(tables.turns[reply_id] for reply_id in tables.order.get(session.id, ()))
        ours = {turn.reply.key for turn in earlier.turns} | set(earlier.spent) if earlier else set()
        spent = {key: at for (user_id, key), at in tables.spent.items() if user_id == session.user_id and key in ours}
        return Document(session=session, turns=turns, spent=spent)


class RedisSessions(Sessions):
    """`Sessions` over what is loaded."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._memory = MemorySessions(loaded.tables)

    async def add(self, session: Session) -> None:
        """Store a new session."""
        await self._memory.add(session)

    async def get(self, session_id: str, user_id: str) -> Session:
        """Return a session of this user."""
        await self._loaded.session(session_id)
        return await self._memory.get(session_id, user_id)

    async def touch(
        self,
        session_id: str,
        user_id: str,
        at: datetime,
        *,
        turns: int = 1,
        said: str | None = None,
        model: str | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Let a reply begin; of two units that do so at once, one is repeated. Nothing is counted here."""
        await self._loaded.session(session_id)
        await self._memory.touch(session_id, user_id, at, turns=turns, said=said, model=model)

    async def hold(self, session_id: str, user_id: str) -> None:
        """Raise the revision; of two units that do so at once, one is repeated."""
        await self._loaded.session(session_id)
        await self._memory.hold(session_id, user_id)

    async def entitle(self, session_id: str, title: str) -> bool:
        """Store a model's title."""
        await self._loaded.session(session_id)
        return await self._memory.entitle(session_id, title)

    async def edit(
        self, session_id: str, user_id: str, *, title: str | None = None, pinned: bool | None = None
    ) -> None:
        """Store title and pin."""
        await self._loaded.session(session_id)
        await self._memory.edit(session_id, user_id, title=title, pinned=pinned)


class RedisTurns(Turns):
    """`Turns` over what is loaded."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._memory = MemoryTurns(loaded.tables)

    async def add(self, turn: Turn) -> None:
        """Store a new turn. Raises SessionNotFound: here a turn lies in its session."""
        session_id, user_id = turn.message.session_id, turn.message.user_id
        if session_id not in self._loaded.tables.sessions:
            await self._loaded.session(session_id)
        if session_id not in self._loaded.tables.sessions:
            raise SessionNotFound
        await self._loaded.reply(turn.reply.id)  # only so that a fence is noticed
        if turn.reply.key is not None:
            await self._loaded.key(user_id, turn.reply.key)
        await self._memory.add(turn)

    async def add_version(self, turn: Turn) -> None:
        """Store another turn with the same message."""
        await self.add(turn)

    async def window(self, session_id: str, limit: int, *, before: int = MAX_POSITION) -> Window:
        """Return the session's count and model, and what was said last."""
        await self._loaded.session(session_id)
        return await self._memory.window(session_id, limit, before=before)

    async def latest(self, session_id: str, limit: int) -> Sequence[Turn]:
        """Return the youngest turns."""
        await self._loaded.session(session_id)
        return await self._memory.latest(session_id, limit)

    async def versions(self, session_id: str, position: int) -> Sequence[Version]:
        """Return the versions at a position."""
        await self._loaded.session(session_id)
        return await self._memory.versions(session_id, position)

    async def last_position(self, session_id: str) -> int:
        """Return the youngest turn's position."""
        await self._loaded.session(session_id)
        return await self._memory.last_position(session_id)

    async def find(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply."""
        await self._loaded.reply(reply_id)
        return await self._memory.find(reply_id, user_id)

    async def find_settled(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply; a unit that is about to add it, if there is one, fails from now on."""
        found = await self.find(reply_id, user_id)
        if found is None:
            self._loaded.fence(reply_id)
        return found

    async def find_by_key(self, key: str, user_id: str) -> Turn | None:
        """Return the turn of a key."""
        await self._loaded.key(user_id, key)
        return await self._memory.find_by_key(key, user_id)

    async def delete(self, session_id: str, position: int, at: datetime) -> int:
        """Erase a turn."""
        await self._loaded.session(session_id)
        return await self._memory.delete(session_id, position, at)

    async def purge(self, before: datetime) -> int:
        """Drop nothing: spent keys go with their session."""
        return 0


class RedisReplies(Replies):
    """`Replies` over what is loaded."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._memory = MemoryReplies(loaded.tables)

    async def finish(self, reply_id: str, attempt: int, end: End, *, meter: Meter | None = None) -> bool:
        """Store an end, if the attempt still runs. Nothing is counted here."""
        await self._loaded.reply(reply_id)
        return await self._memory.finish(reply_id, attempt, end)

    async def restart(self, reply_id: str, attempt: int, instance_id: str) -> bool:
        """Begin the next attempt, if this one failed."""
        await self._loaded.reply(reply_id)
        return await self._memory.restart(reply_id, attempt, instance_id)

    async def save(self, texts: Sequence[Saved]) -> None:
        """Store texts of attempts that still run."""
        await self._loaded.reply(*(text.reply_id for text in texts))
        await self._memory.save(texts)

    async def running(self, instance_id: str) -> Collection[str]:
        """Return nothing: nobody asks for it here, and an index only for that would have to be kept right."""
        return ()

    async def rate(self, reply_id: str, feedback: Feedback | None) -> None:
        """Store feedback."""
        await self._loaded.reply(reply_id)
        await self._memory.rate(reply_id, feedback)

    async def finish_orphans(self, now: datetime, end: End) -> int:
        """End nothing: whoever looks at an orphan ends it, and what nobody looks at is gone in half an hour."""
        return 0
