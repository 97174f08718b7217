"""What a message has to pass before anything is stored: its own form, the operator's lists, limits and moderation."""

from collections.abc import Collection
from dataclasses import dataclass

from chatassist.domain.errors import ContentBlocked, ModelUnknown, SessionNotFound
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
    """Refuses, or lets pass; keeps nothing."""

    def __init__(self, limiter: Limiter, moderator: Moderator, model: ChatModel, rules: MessageRules) -> None:
        self._limiter = limiter
        self._moderator = moderator
        self._model = model
        self._rules = rules

    def checked(self, draft: Draft) -> Draft:
        """Return the draft as it is kept. Raises what `Draft.checked` raises."""
        return draft.checked(self._rules.content_chars)

    async def admit(self, user: User, draft: Draft) -> None:
        """Let a checked draft pass that is no repetition.

        Raises ModelUnknown, SessionNotFound, LlmBusy, TooManySends, ContentBlocked. Whether a session exists is found
        out later: what is refused for that is counted.
        """
        if draft.session_id is not None and not is_id(draft.session_id):
            raise SessionNotFound
        await self.admit_model(user, draft.model)
        if not await self._moderator.allows(draft.text, user.openid):
            raise ContentBlocked

    async def admit_model(self, user: User, model: str | None) -> None:
        """Let a reply be made by this model, to what passed before. Raises ModelUnknown, LlmBusy, TooManySends.

        Whoever is refused for want of room is not counted: that is none of his doing.
        """
        if model is not None and model not in self._rules.models:
            raise ModelUnknown
        self._model.check_room(model)
        await self._limiter.hit(Rule.SENDS, user.id)

    async def count_read(self, user: User) -> None:
        """Count one look at a reply. Raises TooManyReads."""
        await self._limiter.hit(Rule.READS, user.id)
