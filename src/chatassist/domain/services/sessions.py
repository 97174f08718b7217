"""Chat sessions as a user sees them: listed, looked at, named, pinned."""

from collections.abc import Sequence
from dataclasses import dataclass

from chatassist.domain.errors import ContentInvalid, SessionNotFound, TitleEmpty, TitleTooLong
from chatassist.domain.model import Session, User, is_clean, is_id
from chatassist.domain.ports.archive import FIRST_OF_ALL, Mark
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.replies.gate import Gate
from chatassist.domain.search import checked_keyword
from chatassist.domain.titles import TITLE_CHARS
from chatassist.domain.turns import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Some sessions of a list; `rest` is where it goes on, None at its end."""

    sessions: Sequence[Session]
    rest: Mark | None


class SessionService:
    """Shows sessions; messages open them. One that was not to be kept, or is somebody else's, does not exist here."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    async def page(self, user: User, *, limit: int, mark: Mark = FIRST_OF_ALL, keyword: str | None = None) -> Listing:
        """Return the user's sessions behind the mark. Raises what `checked_keyword` raises."""
        named = "" if keyword is None else checked_keyword(keyword)
        found = await self._store.read(lambda tx: tx.archive.sessions(user.id, mark, limit + 1, keyword=named))
        rest = Mark.behind(found[limit - 1]) if len(found) > limit else None
        return Listing(sessions=found[:limit], rest=rest)

    async def get(self, user: User, session_id: str) -> Session:
        """Return a session. Raises SessionNotFound, TooManyReads."""
        await self._gate.count_read(user)
        if not is_id(session_id):
            raise SessionNotFound
        return await self._store.read(lambda tx: tx.sessions.get(session_id, user.id))

    async def edit(self, user: User, session_id: str, *, title: str | None, pinned: bool | None) -> Session:
        """Name a session, pin it or not, and return it; None changes nothing.

        Raises ContentInvalid, TitleEmpty, TitleTooLong, SessionNotFound, TooManyReads.
        """
        named = None if title is None else _checked(title)
        if named is None and pinned is None:
            return await self.get(user, session_id)
        await self._gate.count_read(user)
        if not is_id(session_id):
            raise SessionNotFound

        async def work(tx: Transaction) -> Session:
            await tx.sessions.edit(session_id, user.id, title=named, pinned=pinned)
            return await tx.sessions.get(session_id, user.id)

        return await self._store.write(work)

    async def latest(self, user: User, session_id: str, limit: int = 20) -> tuple[Session, Sequence[Turn]]:
        """Return a session with its youngest turns, oldest first. Raises SessionNotFound."""
        if not is_id(session_id):
            raise SessionNotFound

        async def look(tx: Transaction) -> tuple[Session, Sequence[Turn]]:
            return await tx.sessions.get(session_id, user.id), await tx.turns.latest(session_id, limit)

        return await self._store.read(look)


def _checked(title: str) -> str:
    if not is_clean(title):
        raise ContentInvalid
    title = title.strip()
    if not title:
        raise TitleEmpty
    if len(title) > TITLE_CHARS:
        raise TitleTooLong
    return title
