"""The models that users may choose from."""

from collections.abc import Sequence

from chatassist.domain.model import User
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.llm import Offer


class ModelService:
    """Shows the operator's list."""

    def __init__(self, offers: Sequence[Offer], *, limiter: Limiter) -> None:
        self._offers = offers
        self._limiter = limiter

    async def offered(self, user: User) -> Sequence[Offer]:
        """Return all of them, in the operator's order. Raises TooManyReads."""
        await self._limiter.hit(Rule.READS, user.id)
        return self._offers
