"""How a reply comes to run: one unit of work that stores it as running and reads what its model is to be given."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from chatassist.domain.errors import (
    LoginEnded,
    MessageNotFound,
    NotLastTurn,
    ReplyRunning,
    SessionNotFound,
    StoreUnavailable,
)
from chatassist.domain.model import Prompt, Session
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Store, Transaction, Version, Window
from chatassist.domain.prompt import WINDOW_TURNS, PromptRules, build_prompt
from chatassist.domain.turns import Draft, Exchange, Message, Reply, Status, Turn
from chatassist.domain.usage import ONE_MESSAGE, Meter

log = logging.getLogger(__name__)

UNSAVED_TURNS = 100
"""How many turns an unsaved session holds: it is kept in one piece, in memory, for as long as it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A turn whose claim is committed, what its model is to be given, and where what it takes is counted."""

    turn: Turn
    prompt: Prompt
    meter: Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What precedes the turns of an unsaved session: a saved one, as it was at a position."""

    store: Store
    session_id: str
    user_id: str
    before: int

    async def exchanges(self) -> Sequence[Exchange]:
        """Return what was said; nothing once the session is gone."""

        async def look(tx: Transaction) -> Sequence[Exchange]:
            await tx.sessions.get(self.session_id, self.user_id)
            return (await tx.turns.window(self.session_id, WINDOW_TURNS, before=self.before)).exchanges

        try:
            return await self.store.read(look)
        except SessionNotFound:
            return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(ABC):
    """A way for the reply `reply_id` to start, in `store`. Ids and time are fixed, so it may run twice.

    It counts as one message on `meter`: in its own unit, or, when the store forgets, in `counts_in`.
    """

    store: Store
    rules: PromptRules
    reply_id: str
    user_id: str
    now: datetime
    meter: Meter
    counts_in: Store | None = None
    background: Background | None = None

    async def make(self, instance_id: str) -> Accepted:
        """Store the reply as running under that instance.

        Raises what `_work` raises, StoreUnavailable, and CommitUnknown, after which `find` tells.
        """
        before = await self._before()  # first: once the claim is committed nothing may fail any more

        turn, window = await self.store.write(lambda tx: self._work(tx, instance_id))
        await self._count_elsewhere()
        return self._accepted(turn, before, window)

    async def find(self, instance_id: str) -> Accepted | None:
        """Return what `make` stored, if it did: a COMMIT that is still on its way is waited for."""

        async def look(tx: Transaction) -> tuple[Turn, Window] | None:
            turn = await tx.turns.find_settled(self.reply_id, self.user_id)
            if turn is None or turn.reply.instance_id != instance_id or turn.reply.status is not Status.RUNNING:
                return None
            at = turn.message.position
            return turn, await tx.turns.window(turn.message.session_id, WINDOW_TURNS, before=at)

        before = await self._before()
        found = await self.store.write(look)
        return self._accepted(found[0], before, found[1]) if found else None

    @abstractmethod
    async def _work(self, tx: Transaction, instance_id: str) -> tuple[Turn, Window]:
        """Do the unit of work, and count in it on `_here`; return the turn, and what its session was before it."""

    @property
    def _here(self) -> Meter | None:
        """Where its own unit counts it."""
        return self.meter if self.counts_in is None else None

    async def _count_elsewhere(self) -> None:
        if self.counts_in is None:
            return
        try:
            await self.counts_in.apply(lambda tx: tx.usages.count(self.meter, ONE_MESSAGE))
        except StoreUnavailable:  # the claim is committed: it goes on
            log.warning("a message was not counted", extra={"reply_id": self.reply_id})

    async def _before(self) -> Sequence[Exchange]:
        return await self.background.exchanges() if self.background else ()

    def _accepted(self, turn: Turn, before: Sequence[Exchange], window: Window) -> Accepted:
        earlier = [*before, *(one for one in window.exchanges if one.position < turn.message.position)]
        prompt = build_prompt(self.rules, earlier, turn.message, turn.reply.requested_model or window.model)
        return Accepted(turn=turn, prompt=prompt, meter=self.meter)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendClaim(Claim):
    """A new message: in a session of its user, or in `opens`, which is new.

    Raises SessionNotFound, Taken, and LoginEnded when the account was deleted meanwhile.
    """

    draft: Draft
    session_id: str
    message_id: str
    opens: Session | None
    saved: bool = True

    async def _work(self, tx: Transaction, instance_id: str) -> tuple[Turn, Window]:
        window = await self._take_place(tx)
        position = window.accepted
        turn = self._turn(position, instance_id)
        await tx.turns.add(turn)
        if not self.saved and position > UNSAVED_TURNS:
            await tx.turns.delete(self.session_id, position - UNSAVED_TURNS, self.now)
        return turn, window

    async def _take_place(self, tx: Transaction) -> Window:
        if self.opens is not None:
            if self.saved and not await tx.users.revise(self.user_id):
                raise LoginEnded
            await tx.sessions.add(self.opens)
            if self._here:  # the user first, and then the day: whoever locks in one order never waits in a circle
                await tx.usages.count(self._here, ONE_MESSAGE)
            return Window(accepted=1, exchanges=(), model=self.opens.model)
        said, model = self.draft.text, self.draft.model
        await tx.sessions.touch(self.session_id, self.user_id, self.now, said=said, model=model, meter=self._here)
        return await tx.turns.window(self.session_id, WINDOW_TURNS)

    def _turn(self, position: int, instance_id: str) -> Turn:
        message = Message(
            id=self.message_id,
            session_id=self.session_id,
            user_id=self.user_id,
            position=position,
            content=self.draft.text,
            created_at=self.now,
        )
        reply = Reply(
            id=self.reply_id,
            instance_id=instance_id,
            key=self.draft.key,
            requested_model=self.draft.model,
            created_at=self.now,
        )
        origin_id = self.opens.origin_id if self.opens else None
        return Turn(message=message, reply=reply, saved=self.saved, origin_id=origin_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartClaim(Claim):
    """The next attempt of a reply that failed, by the model that was asked for then, else by the session's.

    It is made whatever became of other versions, but beside none. Raises Taken when somebody else began it,
    ReplyRunning, SessionNotFound.
    """

    failed: Turn

    async def _work(self, tx: Transaction, instance_id: str) -> tuple[Turn, Window]:
        message, reply = self.failed.message, self.failed.reply
        await tx.sessions.touch(message.session_id, self.user_id, self.now, turns=0, meter=self._here)
        _no_other_runs(await tx.turns.versions(message.session_id, message.position), reply.id)
        if not await tx.replies.restart(reply.id, reply.attempt, instance_id):
            raise Taken("the attempt was begun")
        window = await tx.turns.window(message.session_id, WINDOW_TURNS, before=message.position)
        return replace(self.failed, reply=reply.restarted(instance_id)), window


@dataclass(frozen=True, slots=True, kw_only=True)
class RegenerateClaim(Claim):
    """A new version of the reply to the session's last message; `model` is for this one, and no choice for later ones.

    Raises NotLastTurn, ReplyRunning, SessionNotFound, MessageNotFound, and Taken when the key is in use.
    """

    turn: Turn
    key: str | None
    model: str | None

    async def _work(self, tx: Transaction, instance_id: str) -> tuple[Turn, Window]:
        message = self.turn.message
        await tx.sessions.touch(message.session_id, self.user_id, self.now, turns=0, meter=self._here)
        versions = await tx.turns.versions(message.session_id, message.position)
        if not versions:
            raise MessageNotFound
        if await tx.turns.last_position(message.session_id) != message.position:
            raise NotLastTurn
        _no_other_runs(versions, self.reply_id)
        reply = Reply(
            id=self.reply_id,
            version=versions[-1].number + 1,
            instance_id=instance_id,
            key=self.key,
            requested_model=self.model,
            created_at=self.now,
        )
        turn = replace(self.turn, reply=reply)
        await tx.turns.add_version(turn)
        return turn, await tx.turns.window(message.session_id, WINDOW_TURNS, before=message.position)


def _no_other_runs(versions: Sequence[Version], reply_id: str) -> None:
    """Keep replies to one message apart: the user reads one at a time. Raises ReplyRunning."""
    if any(version.status is Status.RUNNING and version.reply_id != reply_id for version in versions):
        raise ReplyRunning
