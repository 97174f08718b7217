"""What the doors are given: every use of the assistant, behind one value."""

import asyncio
from dataclasses import dataclass

from chatassist.domain.ports.persistence import Store
from chatassist.domain.replies.engine import ReplyEngine
from chatassist.domain.services.messages import MessageService
from chatassist.domain.services.sessions import SessionService
from chatassist.domain.services.speech import SpeechService
from chatassist.domain.services.users import UserService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services, and what a door needs to come and go politely."""

    users: UserService
    sessions: SessionService
    messages: MessageService
    speech: SpeechService
    store: Store
    engine: ReplyEngine

    async def check(self) -> None:
        """Make sure that requests can be served. Raises ShuttingDown, StoreUnavailable."""
        self.engine.check_open()
        await self.store.check()

    async def drain(self, seconds: float) -> None:
        """Take no new work, give what runs so many seconds, then end the rest: replies as interrupted."""
        await asyncio.gather(self.engine.drain(seconds), self.speech.drain(seconds))
