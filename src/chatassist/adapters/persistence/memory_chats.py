"""Sessions, turns and replies in dictionaries. The store's lock already keeps other writers out."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from chatassist.adapters.persistence.memory_tables import Tables
from chatassist.domain.errors import MessageNotFound, SessionNotFound
from chatassist.domain.model import Session, TitleSource
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import MAX_POSITION, Replies, Sessions, Turns, Version, Window
from chatassist.domain.titles import first_words, preview_of
from chatassist.domain.turns import End, Exchange, Feedback, Saved, Status, Turn
from chatassist.domain.usage import ONE_MESSAGE, Meter, Used

PURGED_AT_ONCE = 1000


class MemorySessions(Sessions):
    """`Sessions` in a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, session: Session) -> None:
        """Store a new session."""
        self._tables.sessions[session.id] = session

    async def get(self, session_id: str, user_id: str) -> Session:
        """Return a session of this user."""
        session = self._tables.sessions.get(session_id)
        if session is None or session.user_id != user_id or session.deletion_id is not None:
            raise SessionNotFound
        return session

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
        """Let a reply begin."""
        session = await self._kept(session_id, user_id)
        self._tables.change_session(session.began(at, turns=turns, said=said, model=model))
        if meter is not None:
            self._tables.count(meter, ONE_MESSAGE)

    async def hold(self, session_id: str, user_id: str) -> None:
        """Raise the revisions."""
        self._tables.change_session((await self._kept(session_id, user_id)).revised())

    async def entitle(self, session_id: str, title: str) -> bool:
        """Store a model's title."""
        session = self._tables.sessions.get(session_id)
        if session is None or session.deletion_id is not None or session.title_source is not TitleSource.QUESTION:
            return False
        self._tables.change_session(replace(session.revised(), title=title, title_source=TitleSource.MODEL))
        return True

    async def edit(
        self, session_id: str, user_id: str, *, title: str | None = None, pinned: bool | None = None
    ) -> None:
        """Store title and pin."""
        self._tables.change_session((await self._kept(session_id, user_id)).edited(title=title, pinned=pinned))

    async def _kept(self, session_id: str, user_id: str) -> Session:
        """Return a session that may change: not one of a user who is gone."""
        if user_id in self._tables.erasures:
            raise SessionNotFound
        return await self.get(session_id, user_id)


class MemoryTurns(Turns):
    """`Turns` in dictionaries."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, turn: Turn) -> None:
        """Store a new turn."""
        tables, session_id, reply = self._tables, turn.message.session_id, turn.reply
        if reply.key is not None:
            key = (turn.message.user_id, reply.key)
            if key in tables.keys or key in tables.spent:
                raise Taken("the key has a turn")
            tables.keys[key] = reply.id
        tables.turns[reply.id] = turn
        known = (*tables.order.get(session_id, ()), reply.id)
        tables.order[session_id] = tuple(sorted(known, key=lambda one: _place(tables.turns[one])))

    async def add_version(self, turn: Turn) -> None:
        """Store another turn with the same message."""
        await self.add(turn)

    async def window(self, session_id: str, limit: int, *, before: int = MAX_POSITION) -> Window:
        """Return the session's count and model, and its youngest turns that speak."""
        session = self._tables.sessions.get(session_id)
        if session is None:
            return Window(accepted=0, exchanges=[], model=None)
        spoken = [turn for turn in self._shown(session_id) if turn.speaks and turn.message.position < before]
        exchanges = [Exchange.of(turn) for turn in _last(spoken, limit)]
        return Window(accepted=session.turns, exchanges=exchanges, model=session.model)

    async def latest(self, session_id: str, limit: int) -> Sequence[Turn]:
        """Return the youngest turns."""
        return _last(self._shown(session_id), limit)

    async def versions(self, session_id: str, position: int) -> Sequence[Version]:
        """Return the versions at a position."""
        at = (turn.reply for turn in self._of(session_id) if turn.message.position == position)
        return [Version(reply_id=reply.id, number=reply.version, status=reply.status) for reply in at]

    async def last_position(self, session_id: str) -> int:
        """Return the youngest turn's position."""
        return max((turn.message.position for turn in self._of(session_id)), default=0)

    async def find(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply."""
        turn = self._tables.turns.get(reply_id)
        return turn if turn and turn.message.user_id == user_id and self._is_kept(turn) else None

    async def find_settled(self, reply_id: str, user_id: str) -> Turn | None:
        """Return the turn of a reply."""
        return await self.find(reply_id, user_id)

    async def find_by_key(self, key: str, user_id: str) -> Turn | None:
        """Return the turn of a key."""
        if (user_id, key) in self._tables.spent:
            raise MessageNotFound
        turn = self._tables.turns.get(self._tables.keys.get((user_id, key), ""))
        if turn and not self._is_kept(turn):
            raise MessageNotFound
        return turn

    async def delete(self, session_id: str, position: int, at: datetime) -> int:
        """Erase a turn."""
        tables = self._tables
        gone = [turn for turn in self._of(session_id) if turn.message.position == position]
        for turn in gone:
            del tables.turns[turn.reply.id]
            if turn.reply.key is not None:
                key = (turn.message.user_id, turn.reply.key)
                del tables.keys[key]
                tables.spent[key] = at
        left = tables.order.get(session_id, ())
        tables.order[session_id] = tuple(reply_id for reply_id in left if reply_id in tables.turns)
        if not gone:
            return 0
        self._tell(session_id, sum(turn.reply.status is Status.RUNNING for turn in gone))
        self._rename_after(session_id, position)
        return len(gone) + 1

    async def purge(self, before: datetime) -> int:
        """Drop keys of turns that are long deleted."""
        spent = [key for key, at in self._tables.spent.items() if at < before][:PURGED_AT_ONCE]
        for key in spent:
            del self._tables.spent[key]
        return len(spent)

    def _tell(self, session_id: str, running_less: int) -> None:
        """Let the session show that a turn of it is gone."""
        if (session := self._tables.sessions.get(session_id)) is None:
            return
        latest = self._shown(session_id)[-1:]
        preview = preview_of(latest[0].reply.content or latest[0].message.content) if latest else ""
        self._tables.sessions[session_id] = replace(
            session, messages=session.messages - 2, running=session.running - running_less, preview=preview
        )

    def _rename_after(self, session_id: str, position: int) -> None:
        """Let a session that lost its first turn be called after what is first now."""
        session = self._tables.sessions.get(session_id)
        left = [turn.message for turn in self._of(session_id)]
        if session is None or session.title_source is TitleSource.USER or (left and left[0].position < position):
            return
        title = first_words(left[0].content) if left else ""
        self._tables.sessions[session_id] = replace(session, title=title, title_source=TitleSource.QUESTION)

    def _is_kept(self, turn: Turn) -> bool:
        session = self._tables.sessions.get(turn.message.session_id)
        return session is not None and session.deletion_id is None

    def _of(self, session_id: str) -> list[Turn]:
        return [self._tables.turns[reply_id] for reply_id in self._tables.order.get(session_id, ())]

    def _shown(self, session_id: str) -> list[Turn]:
        shown: dict[int, Turn] = {}
        for turn in self._of(session_id):  # oldest version first
            known = shown.get(turn.message.position)
            if known is None or turn.reply.good or not known.reply.good:
                shown[turn.message.position] = turn
        return list(shown.values())


class MemoryReplies(Replies):
    """The replies inside the turns."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def finish(self, reply_id: str, attempt: int, end: End, *, meter: Meter | None = None) -> bool:
        """Store an end, if the attempt still runs."""
        turn = self._running(reply_id, attempt)
        if turn is None:
            return False
        reply = turn.reply.ended(end)
        self._tables.turns[reply_id] = replace(turn, reply=reply)
        if session := self._tables.sessions.get(turn.message.session_id):
            newest = turn.message.position == session.turns
            seen = preview_of(end.content or "") if newest else ""
            self._tables.change_session(session.ended(good=reply.good, preview=seen))
        if meter is not None and end.usage is not None:
            used = Used(input_tokens=end.usage.input_tokens, output_tokens=end.usage.output_tokens)
            self._tables.count(meter, used)
        return True

    async def restart(self, reply_id: str, attempt: int, instance_id: str) -> bool:
        """Begin the next attempt, if this one failed."""
        turn = self._tables.turns.get(reply_id)
        if turn is None or turn.reply.attempt != attempt or turn.reply.status is not Status.FAILED:
            return False
        self._tables.turns[reply_id] = replace(turn, reply=turn.reply.restarted(instance_id))
        return True

    async def save(self, texts: Sequence[Saved]) -> None:
        """Store texts of attempts that still run."""
        for text in texts:
            turn = self._running(text.reply_id, text.attempt)
            if turn is not None:
                reply = replace(turn.reply, seq=text.seq, content=text.content, thinking=text.thinking)
                self._tables.turns[text.reply_id] = replace(turn, reply=reply)

    async def running(self, instance_id: str) -> Collection[str]:
        """Return what runs under an instance."""
        replies = (turn.reply for turn in self._tables.turns.values())
        return {one.id for one in replies if one.status is Status.RUNNING and one.instance_id == instance_id}

    async def rate(self, reply_id: str, feedback: Feedback | None) -> None:
        """Store feedback."""
        if turn := self._tables.turns.get(reply_id):
            self._tables.turns[reply_id] = replace(turn, reply=replace(turn.reply, feedback=feedback))

    async def finish_orphans(self, now: datetime, end: End) -> int:
        """End what runs on instances that are not alive."""
        alive = {instance for instance, until in self._tables.instances.items() if until > now}
        running = (turn.reply for turn in self._tables.turns.values() if turn.reply.status is Status.RUNNING)
        orphans = [reply for reply in running if reply.instance_id not in alive]
        for reply in orphans:
            await self.finish(reply.id, reply.attempt, replace(end, content=None, seq=None))
        return len(orphans)

    def _running(self, reply_id: str, attempt: int) -> Turn | None:
        turn = self._tables.turns.get(reply_id)
        runs = turn and turn.reply.attempt == attempt and turn.reply.status is Status.RUNNING
        return turn if runs else None


def _place(turn: Turn) -> tuple[int, int]:
    return turn.message.position, turn.reply.version


def _last(turns: Sequence[Turn], limit: int) -> Sequence[Turn]:
    return turns[max(len(turns) - limit, 0) :]
