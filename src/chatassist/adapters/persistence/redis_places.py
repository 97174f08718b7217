"""Places of keys that several instances agree on through Redis. A key is there as a hash alone, and for a minute."""

import secrets
from hashlib import sha256

from chatassist.adapters.redis import PREFIX, RedisAway, RedisLink, RedisRefused
from chatassist.domain.ports.places import Places

_KEPT = 60_000
"""Milliseconds: what a claim may take (20 s), and what may pass between a look into both stores and a look here."""
_RUNS = 8


class RedisPlaces(Places):
    """One entry for each key in use: the place, and which instance took it last."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._me = secrets.token_hex(8)

    async def take(self, user_id: str, key: str, *, saved: bool) -> bool:
        """Take a place in one round trip, where nobody used the key just now; while Redis is away, without asking."""
        where = f"{PREFIX}place:{sha256(f'{user_id}/{key}'.encode()).hexdigest()}"
        place = "saved" if saved else "unsaved"
        try:
            if await self._link.ask("SET", where, f"{place} {self._me}", "NX", "PX", _KEPT):
                return True
            return await self._retaken(where, place)
        except (RedisAway, RedisRefused):
            return True

    async def _retaken(self, where: str, place: str) -> bool:
        for _ in range(_RUNS):
            async with self._link.watching() as watch:
                [held] = await watch.get([where])
                if held and (words := held.decode().split())[0] != place and words[1] != self._me:
                    return False
                if await watch.commit([("SET", where, f"{place} {self._me}", "PX", _KEPT)]):
                    return True
        return False
