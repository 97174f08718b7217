"""Accounts that their owner deletes, for good."""

import logging

from chatassist.domain.errors import CommitUnknown, LoginEnded, StoreUnavailable, WrongAccount
from chatassist.domain.model import User
from chatassist.domain.ports.identity import IdentityProvider
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.runtime import Clock
from chatassist.domain.replies.gate import Gate
from chatassist.domain.replies.stop import Stopper
from chatassist.domain.replies.stores import Stores

log = logging.getLogger(__name__)


class AccountService:
    """Deletes accounts. What was used today stays counted: it is kept under a pseudonym."""

    def __init__(
        self, stores: Stores, identity: IdentityProvider, *, stopper: Stopper, gate: Gate, clock: Clock
    ) -> None:
        self._stores = stores
        self._identity = identity
        self._stopper = stopper
        self._gate = gate
        self._clock = clock

    async def delete(self, user: User, code: str) -> None:
        """Delete the account of whoever the code stands for, and erase all there is of him.

        Once his user is gone there is no way back: what cannot be erased now, the purge erases later.
        Raises what `IdentityProvider.identify` raises, WrongAccount, TooManyReads, StoreUnavailable, and LoginEnded
        when the account was deleted meanwhile.
        """
        await self._gate.count_read(user)
        if await self._identity.identify(code) != user.openid:
            raise WrongAccount
        await self._stopper.stop_all_of(user.id)
        await self._begin(user)
        log.info("account deleted", extra={"user_id": user.id})
        stop_what_began_since = self._stopper.stop_all_of
        for step in (stop_what_began_since, self._erase_saved, self._erase_unsaved):
            try:
                await step(user.id)
            except StoreUnavailable:
                log.warning("the rest of a deleted account is erased later", extra={"user_id": user.id})

    async def _begin(self, user: User) -> None:
        now = self._clock()
        try:
            gone = await self._stores.saved.write(lambda tx: tx.erasures.begin(user.id, now))
        except CommitUnknown:  # if it did happen, now there is nothing to do
            await self._stores.saved.write(lambda tx: tx.erasures.begin(user.id, now))
            return
        if not gone:
            raise LoginEnded

    async def _erase_saved(self, user_id: str) -> None:
        await _erase(self._stores.saved, user_id)

    async def _erase_unsaved(self, user_id: str) -> None:
        """Forget at once what would be forgotten soon; where it lies in Redis, nobody can reach it until then."""
        await _erase(self._stores.unsaved, user_id)


async def _erase(store: Store, user_id: str) -> None:
    while await store.write(lambda tx: tx.erasures.erase_account(user_id)):
        pass
