"""Searching what was said."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.model import User
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.ports.search import Hit, Looked
from chatassist.domain.search import checked_keyword


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRules:
    """How much one search may look through: so many messages, in portions, until so many seconds are over.

    Messages are long or short, and nobody knows before: the first portion is small, and each that took no longer than
    `brisk` seconds is followed by one `growth` times as large.
    """

    messages: int = 10_000
    portion: int = 250
    growth: int = 4
    brisk: float = 0.1
    seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of hits, newest first. `before`: what the next page goes on with; None when there is none."""

    hits: Sequence[Hit]
    before: str | None


class SearchService:
    """Looks for words in a user's own messages."""

    def __init__(self, store: Store, limiter: Limiter, rules: SearchRules) -> None:
        self._store = store
        self._limiter = limiter
        self._rules = rules

    async def find(self, user: User, keyword: str, *, before: str | None = None, limit: int = 20) -> Found:
        """Return hits in messages below `before`, at most `limit`: maybe few or none, with more to come.

        Raises ContentInvalid, KeywordEmpty, KeywordTooLong, TooManyReads, StoreUnavailable.
        """
        sought = checked_keyword(keyword)
        await self._limiter.hit(Rule.READS, user.id)
        rules, now = self._rules, asyncio.get_running_loop().time
        until = now() + rules.seconds
        left, portion, hits = rules.messages, rules.portion, list[Hit]()
        while True:
            began = now()
            wanted = limit + 1 - len(hits)  # one more tells whether there is a next page
            try:
                looked = await self._look(user, sought, before, min(portion, left), wanted)
            except StoreUnavailable:
                if left == rules.messages:
                    raise
                return Found(hits=hits, before=before)  # it may have been too much at once: the next one begins small
            hits += looked.hits
            if len(hits) > limit:
                return Found(hits=hits[:limit], before=hits[limit - 1].message_id)
            before, left = looked.down_to, left - portion
            if before is None or left <= 0 or now() > until:
                return Found(hits=hits, before=before)
            if now() - began <= rules.brisk:
                portion *= rules.growth

    async def _look(self, user: User, keyword: str, before: str | None, messages: int, limit: int) -> Looked:
        """Look through a portion, by a read of its own: what a single one may take is bounded."""

        async def look(tx: Transaction) -> Looked:
            return await tx.search.look(user.id, keyword, before=before, messages=messages, limit=limit)

        return await self._store.read(look)
