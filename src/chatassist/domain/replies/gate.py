"""What a message has to pass before anything is stored: its own form, the operator's lists, limits and moderation."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chatassist.domain.errors import ContentBlocked, LlmBusy, ModelUnknown, SessionNotFound
from chatassist.domain.model import User, is_id
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.llm import ChatModel
from chatassist.domain.ports.moderation import Moderator
from chatassist.domain.turns import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRules:
    """What a send may hold: characters after trimming, and which models may be named."""

    content_chars: int = 8000
    models: Collection[str] = ()


class Gate:
    """Refuses, or lets pass; keeps nothing but how many are on their way from here to the model."""

    def __init__(self, limiter: Limiter, moderator: Moderator, model: ChatModel, rules: MessageRules) -> None:
        self._limiter = limiter
        self._moderator = moderator
        self._model = model
        self._rules = rules
        self._coming = 0

    def checked(self, draft: Draft) -> Draft:
        """Return the draft as it is kept. Raises what `Draft.checked` raises."""
        return draft.checked(self._rules.content_chars)

    @contextmanager
    def seat(self, model: str | None) -> Iterator[None]:
        """Keep a seat for one reply by this model until its production has begun. Raises ModelUnknown, LlmBusy.

        Were the room only looked at, all who come while others are being stored would find the same one free.
        """
        if model is not None and model not in self._rules.models:
            raise ModelUnknown
        if self._model.room(model) <= self._coming:
            raise LlmBusy
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def admit(self, user: User, draft: Draft) -> None:
        """Let a checked draft pass that has a seat and is no repetition.

        Raises SessionNotFound, TooManySends, ContentBlocked. Whether a session exists is found out later: what is
        refused for that is counted.
        """
        if draft.session_id is not None and not is_id(draft.session_id):
            raise SessionNotFound
        await self.count_send(user)
        if not await self._moderator.allows(draft.text, user.openid):
            raise ContentBlocked

    async def count_send(self, user: User) -> None:
        """Count one reply that is to be made. Raises TooManySends."""
        await self._limiter.hit(Rule.SENDS, user.id)

    async def count_read(self, user: User) -> None:
        """Count one look at a reply. Raises TooManyReads."""
        await self._limiter.hit(Rule.READS, user.id)
