"""People: logging in, being recognised, logging out."""

import logging
from dataclasses import dataclass, replace

from chatassist.domain.errors import CommitUnknown, LoginEnded, StoreUnavailable, TokenInvalid, UserBlocked
from chatassist.domain.model import Login, Profile, User, UserChange
from chatassist.domain.ports.identity import IdentityProvider, Tokens
from chatassist.domain.ports.limits import Limiter, Rule
from chatassist.domain.ports.people import Taken
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.ports.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A new login: its token, whose it is, and the token's life in seconds."""

    token: str
    user: User
    expires_in: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is calling, and by which login."""

    user: User
    login_id: str


class UserService:
    """Knows users and their logins."""

    def __init__(
        self,
        store: Store,
        identity: IdentityProvider,
        tokens: Tokens,
        *,
        limiter: Limiter,
        runtime: Runtime,
    ) -> None:
        self._store = store
        self._identity = identity
        self._tokens = tokens
        self._limiter = limiter
        self._clock = runtime.clock
        self._new_id = runtime.new_id

    async def login(self, code: str, profile: Profile, address: str | None) -> SignedIn:
        """Log in whoever the code stands for; the first login makes the user.

        `address` is what logins are limited by; None is not limited.
        Raises what `IdentityProvider.identify` raises, TooManyLogins, UserBlocked, StoreUnavailable.
        """
        if address is not None:
            await self._limiter.hit(Rule.LOGINS, address)
        openid = await self._identity.identify(code)
        for _ in range(2):
            user = await self.ensure(openid, profile)
            if user.blocked:
                raise UserBlocked
            if login := await self._add_login(user):
                log.info("logged in", extra={"user_id": user.id})
                seconds = int(self._tokens.lifetime.total_seconds())
                return SignedIn(token=self._tokens.issue(login), user=user, expires_in=seconds)
        raise StoreUnavailable("accounts of one openid are deleted again and again")

    async def _add_login(self, user: User) -> Login | None:
        """Store a new login; None where the account was deleted meanwhile."""
        now = self._clock()
        login = Login(id=self._new_id(), user_id=user.id, created_at=now, expires_at=now + self._tokens.lifetime)

        async def work(tx: Transaction) -> bool:
            known = await tx.users.hold(user.id)
            if known:
                await tx.logins.add(login)
            return known

        return login if await self._store.write(work) else None

    async def ensure(self, openid: str, profile: Profile | None = None) -> User:
        """Return the user of an openid, wearing what is usable of the profile; make one where there is none."""
        worn = profile or Profile()
        known = await self._store.read(lambda tx: tx.users.find(openid))
        if known is not None and known.wearing(worn) == known:
            return known
        new = User(id=self._new_id(), openid=openid, created_at=self._clock())

        async def work(tx: Transaction) -> User:
            known = await tx.users.find(openid)
            user = (known or new).wearing(worn)
            if known is None:
                await tx.users.add(user)
            elif user != known:
                await tx.users.change(known.id, known.differing(user))
            return user

        try:
            return await self._store.write(work)
        except (Taken, CommitUnknown):  # another first login was quicker, or this one was: now it is found
            return await self._store.write(work)

    async def authenticate(self, token: str, *, even_blocked: bool = False) -> Caller:
        """Return who the token belongs to. Raises TokenInvalid, TokenExpired, LoginEnded, UserBlocked."""
        claims = self._tokens.read(token)
        found = await self._store.read(lambda tx: tx.logins.find(claims.login_id))
        if found is None:
            raise LoginEnded
        login, user = found
        if user.id != claims.user_id:
            raise TokenInvalid
        if user.blocked and not even_blocked:
            raise UserBlocked
        return Caller(user=user, login_id=login.id)

    async def info(self, user: User) -> User:
        """Return the user as shown to himself. Raises TooManyReads."""
        await self._limiter.hit(Rule.READS, user.id)
        return user

    async def change(self, user: User, change: UserChange) -> User:
        """Change what the user names, at once and on every instance; return him as he is then.

        Raises ContentInvalid, NicknameInvalid, AvatarInvalid, TooManyReads, and LoginEnded where the account is gone.
        """
        checked = change.checked()
        await self._limiter.hit(Rule.READS, user.id)
        if not checked.fields:
            return user

        async def apply(tx: Transaction) -> User | None:
            await tx.users.change(user.id, checked)
            return await tx.users.find_by_id(user.id)

        changed = await self._store.apply(apply)
        if changed is None:
            raise LoginEnded
        log.info("user changed", extra={"user_id": user.id, "fields": sorted(checked.fields)})
        return changed

    async def logout(self, caller: Caller, *, everywhere: bool = False) -> None:
        """End this login, or all of the user's. Once it returns, the token is refused on every instance."""

        async def work(tx: Transaction) -> None:
            if everywhere:
                await tx.logins.end_all(caller.user.id)
            else:
                await tx.logins.end(caller.login_id)

        await self._store.apply(work)
        log.info("logged out", extra={"user_id": caller.user.id, "everywhere": everywhere})

    async def block(self, user_id: str, *, blocked: bool) -> User | None:
        """Block or unblock a user by id or openid, from the next request on; None when there is no such user."""

        async def work(tx: Transaction) -> User | None:
            user = await tx.users.find_by_id(user_id) or await tx.users.find(user_id)
            if user is not None:
                await tx.users.set_blocked(user.id, blocked=blocked)
            return user

        user = await self._store.write(work)
        if user:
            log.info("user blocked" if blocked else "user unblocked", extra={"user_id": user.id})
        return user and replace(user, blocked=blocked)
