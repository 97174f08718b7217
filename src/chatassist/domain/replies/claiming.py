"""Which claim a user's wish makes: where its turn is to live is decided here, once and for the turn's life."""

from chatassist.domain.errors import SessionNotFound
from chatassist.domain.model import Session, User
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.prompt import PromptRules
from chatassist.domain.replies.claims import Background, RegenerateClaim, RestartClaim, SendClaim
from chatassist.domain.replies.stores import Stores
from chatassist.domain.turns import Draft, Turn
from chatassist.domain.usage import Metering


class Claims:
    """Makes claims, each with ids and a time of its own."""

    def __init__(self, stores: Stores, runtime: Runtime, *, rules: PromptRules, metering: Metering) -> None:
        self._stores = stores
        self._clock = runtime.clock
        self._new_id = runtime.new_id
        self._rules = rules
        self._metering = metering

    def saved(self, user: User, draft: Draft) -> SendClaim:
        """Return the claim of a checked draft in a saved session, the named one or a new one."""
        return self._send(user, draft, opens=None if draft.session_id else self._new_session(user, draft))

    async def unsaved(self, user: User, draft: Draft) -> SendClaim:
        """Return the claim of a checked draft that is not to be kept.

        A named session that is unsaved goes on; one that is saved is continued in a new, unsaved one, if its user
        wants nothing saved. Raises SessionNotFound.
        """
        known = await self._unsaved_session(user, draft)
        if known is not None:
            return self._send(user, draft, saved=False, background=self._background(known))
        if user.preferences.save_history:
            raise SessionNotFound
        opens = self._new_session(user, draft, continues=await self._saved_session(user, draft))
        return self._send(user, draft, saved=False, opens=opens, background=self._background(opens))

    async def restart(self, user: User, turn: Turn) -> RestartClaim:
        """Return the claim of a failed reply's next attempt."""
        now = self._clock()
        return RestartClaim(
            store=self._stores.of(turn),
            rules=self._rules,
            user_id=user.id,
            reply_id=turn.reply.id,
            now=now,
            meter=self._metering.meter(user.openid, now),
            counts_in=self._counts_in(turn.saved),
            background=await self._background_of(turn),
            failed=turn,
        )

    async def regenerate(self, user: User, turn: Turn, *, key: str | None, model: str | None) -> RegenerateClaim:
        """Return the claim of another version of a reply."""
        now = self._clock()
        return RegenerateClaim(
            store=self._stores.of(turn),
            rules=self._rules,
            user_id=user.id,
            reply_id=self._new_id(),
            now=now,
            meter=self._metering.meter(user.openid, now),
            counts_in=self._counts_in(turn.saved),
            background=await self._background_of(turn),
            turn=turn,
            key=key,
            model=model,
        )

    def _send(
        self,
        user: User,
        draft: Draft,
        *,
        opens: Session | None = None,
        saved: bool = True,
        background: Background | None = None,
    ) -> SendClaim:
        now = opens.created_at if opens else self._clock()
        return SendClaim(
            store=self._stores.saved if saved else self._stores.unsaved,
            rules=self._rules,
            user_id=user.id,
            message_id=self._new_id(),  # before the reply's: a search goes by ids, the youngest first
            reply_id=self._new_id(),
            now=now,
            meter=self._metering.meter(user.openid, now),
            counts_in=self._counts_in(saved),
            background=background,
            draft=draft,
            session_id=opens.id if opens else draft.session_id or "",
            opens=opens,
            saved=saved,
        )

    def _counts_in(self, saved: bool) -> Store | None:
        return None if saved else self._stores.saved

    def _new_session(self, user: User, draft: Draft, *, continues: Session | None = None) -> Session:
        now = self._clock()
        new = Session(
            id=self._new_id(),
            user_id=user.id,
            created_at=now,
            updated_at=now,
            saved=user.preferences.save_history,
        )
        session = new.began(now, turns=1, said=draft.text, model=draft.model)
        return session.continuing(continues) if continues else session

    async def _unsaved_session(self, user: User, draft: Draft) -> Session | None:
        return await _find(self._stores.unsaved, draft.session_id, user.id)

    async def _saved_session(self, user: User, draft: Draft) -> Session | None:
        if draft.session_id is None:
            return None
        found = await _find(self._stores.saved, draft.session_id, user.id)
        if found is None:
            raise SessionNotFound
        return found

    def _background(self, session: Session) -> Background | None:
        if session.origin_id is None:
            return None
        return Background(
            store=self._stores.saved,
            session_id=session.origin_id,
            user_id=session.user_id,
            before=session.origin_turns + 1,
        )

    async def _background_of(self, turn: Turn) -> Background | None:
        if turn.saved:
            return None
        session = await _find(self._stores.unsaved, turn.message.session_id, turn.message.user_id)
        return self._background(session) if session else None


async def _find(store: Store, session_id: str | None, user_id: str) -> Session | None:
    if session_id is None:
        return None
    try:
        return await store.read(lambda tx: tx.sessions.get(session_id, user_id))
    except SessionNotFound:
        return None
