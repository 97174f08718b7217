"""How a reply comes to run: one unit of work that stores its turn and reads what its model is to be given."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chatassist.domain.model import Prompt, Session, User
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.prompt import WINDOW_TURNS, PromptRules, build_prompt
from chatassist.domain.turns import Draft, Message, Reply, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A turn whose claim is committed, and what its model is to be given."""

    turn: Turn
    prompt: Prompt


class Claim(ABC):
    """A way for a reply to start."""

    @abstractmethod
    async def make(self, instance_id: str) -> Accepted:
        """Store the turn as running under that instance. Raises CommitUnknown, after which `find` tells."""

    @abstractmethod
    async def find(self) -> Accepted | None:
        """Return what `make` stored, if it did: a COMMIT that is still on its way is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendClaim(Claim):
    """A new message, in a session of its user or in a new one. Ids and time are fixed, so it may run twice."""

    store: Store
    rules: PromptRules
    user_id: str
    draft: Draft
    now: datetime
    session_id: str
    message_id: str
    reply_id: str

    async def make(self, instance_id: str) -> Accepted:
        """Store message and running reply. Raises SessionNotFound, Taken, StoreUnavailable, CommitUnknown."""

        async def work(tx: Transaction) -> tuple[Turn, Sequence[Turn]]:
            position, earlier = await self._take_place(tx)
            turn = self._turn(position, instance_id)
            await tx.turns.add(turn)
            return turn, earlier

        return self._accepted(*await self.store.write(work))

    async def find(self) -> Accepted | None:
        """Return the turn, once it is certain, with the window it would be claimed with now."""

        async def look(tx: Transaction) -> tuple[Turn | None, Sequence[Turn]]:
            turn = await tx.turns.find_settled(self.reply_id, self.user_id)
            return turn, (await tx.turns.window(self.session_id, WINDOW_TURNS)).turns

        turn, earlier = await self.store.write(look)
        return self._accepted(turn, earlier) if turn else None

    async def _take_place(self, tx: Transaction) -> tuple[int, Sequence[Turn]]:
        if self.draft.session_id is None:
            await tx.sessions.add(
                Session(id=self.session_id, user_id=self.user_id, turns=1, created_at=self.now, updated_at=self.now)
            )
            return 1, ()
        await tx.sessions.touch(self.session_id, self.user_id, self.now)
        window = await tx.turns.window(self.session_id, WINDOW_TURNS)
        return window.accepted, window.turns

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
        return Turn(message=message, reply=reply)

    def _accepted(self, turn: Turn, window: Sequence[Turn]) -> Accepted:
        earlier = [other for other in window if other.message.position < turn.message.position]
        return Accepted(turn=turn, prompt=build_prompt(self.rules, earlier, turn.message, self.draft.model))


class SendClaims:
    """Makes claims for messages of users."""

    def __init__(self, store: Store, runtime: Runtime, rules: PromptRules) -> None:
        self._store = store
        self._runtime = runtime
        self._rules = rules

    def of(self, user: User, draft: Draft) -> SendClaim:
        """Return the claim of a checked draft, with ids and time of its own."""
        new_id = self._runtime.new_id
        return SendClaim(
            store=self._store,
            rules=self._rules,
            user_id=user.id,
            draft=draft,
            now=self._runtime.clock(),
            session_id=draft.session_id or new_id(),
            message_id=new_id(),
            reply_id=new_id(),
        )
