"""What the doors are given: every use of the assistant, behind one value."""

import asyncio
from dataclasses import KW_ONLY, dataclass

from chatassist.domain.ports.persistence import Store
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.services.accounts import AccountService
from chatassist.domain.services.deletions import DeletionService
from chatassist.domain.services.exports import ExportService
from chatassist.domain.services.history import HistoryService
from chatassist.domain.services.messages import MessageService
from chatassist.domain.services.models import ModelService
from chatassist.domain.services.replies import ReplyService
from chatassist.domain.services.search import SearchService
from chatassist.domain.services.sessions import SessionService
from chatassist.domain.services.speech import SpeechService
from chatassist.domain.services.usage import UsageService
from chatassist.domain.services.users import UserService


@dataclass(frozen=True)
class Services:
    """The services, and what a door needs to come and go politely."""

    _store: Store
    _engine: ReplyEngine
    _: KW_ONLY
    users: UserService
    sessions: SessionService
    history: HistoryService
    search: SearchService
    messages: MessageService
    replies: ReplyService
    models: ModelService
    speech: SpeechService
    usage: UsageService
    exports: ExportService
    deletions: DeletionService
    accounts: AccountService

    async def check(self) -> None:
        """Make sure that requests can be served. Raises ShuttingDown, StoreUnavailable."""
        self._engine.check_open()
        await self._store.check()

    async def drain(self, seconds: float) -> None:
        """Take no new work, give what runs so many seconds, then end the rest: replies as interrupted.

        Whoever follows a reply of another process is told to follow it elsewhere.
        """
        await asyncio.gather(self._engine.drain(seconds), self.speech.drain(seconds))
        self.replies.close()
