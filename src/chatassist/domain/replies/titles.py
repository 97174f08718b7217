"""Titles that a model gives to new sessions: made beside the first reply, which never waits for them.

Whatever goes wrong here is a line in the log: the session keeps the first words of its question.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from chatassist.domain.errors import ChatAssistError, LlmTimeout, MessageNotFound, NotFound
from chatassist.domain.model import TitleSource
from chatassist.domain.ports.llm import ChatModel
from chatassist.domain.ports.persistence import Transaction
from chatassist.domain.ports.replies import ReplyFeed, Titled
from chatassist.domain.replies.production import Production
from chatassist.domain.replies.stores import Stores
from chatassist.domain.replies.title_words import EXCERPT_CHARS, title_of, title_prompt
from chatassist.domain.turns import End, FinishReason, Status, Turn

log = logging.getLogger(__name__)

TITLES_AT_ONCE = 32
ANSWER_CHARS = 8_000
"""How much of a title model's answer is read: some think aloud before they answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TitleRules:
    """Bounds: seconds that a title may take, and how many may be made at once; a session beyond goes without."""

    deadline: float = 20.0
    at_once: int = TITLES_AT_ONCE


class Titler:
    """Gives titles to saved sessions whose first reply is produced here; without a model, to none."""

    def __init__(
        self, stores: Stores, feed: ReplyFeed, model: ChatModel | None, *, rules: TitleRules | None = None
    ) -> None:
        self._stores = stores
        self._feed = feed
        self._model = model
        self._rules = rules or TitleRules()
        self._untitled: set[Production] = set()
        self._tasks: dict[Production, asyncio.Task[None]] = {}
        self._closed = False

    def watch(self, production: Production) -> None:
        """Begin a title as soon as there is enough of a reply, if it is one that gives its session a title."""
        turn = production.turn
        if self._model and turn.saved and (turn.message.position, turn.reply.version) == (1, 1):
            self._untitled.add(production)
            production.on_excerpt = partial(self._try, production)

    def ended(self, production: Production, end: End) -> None:
        """Begin the title of a reply that ended well before there was enough of it; give up that of any other.

        One that was ended from outside may be deleted.
        """
        task = self._tasks.get(production)
        if task is None and production not in self._untitled:
            return
        turn = production.turn
        if end.seq != turn.reply.last_seq and replace(turn, reply=turn.reply.ended(end)).speaks:
            self._try(production, least=1)
        elif task:
            task.cancel()
        self._untitled.discard(production)

    async def close(self) -> None:
        """Begin nothing any more, and give up what is being made."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _try(self, production: Production, least: int = EXCERPT_CHARS) -> None:
        """Begin a title, once, if the reply says something, in at least so many characters."""
        if production not in self._untitled or self._closed:
            return
        spoken = production.text
        if len(spoken) < least or not spoken.strip():
            return
        self._untitled.discard(production)
        if len(self._tasks) >= self._rules.at_once:
            log.warning("title skipped: too many are being made", extra=_about(production.turn))
            return
        task = asyncio.create_task(self._entitle(production, spoken))
        self._tasks[production] = task
        task.add_done_callback(lambda _: self._tasks.pop(production))

    async def _entitle(self, production: Production, spoken: str) -> None:
        turn = production.turn
        try:
            async with asyncio.timeout(self._rules.deadline):
                title = await self._made(turn, spoken)
            kept = bool(title) and await self._keep(turn, title)
            log.info("title made" if kept else "title dropped", extra=_about(turn))
            if kept:
                await self._tell(production, title)
        except NotFound:
            log.info("title dropped", extra=_about(turn))
        except TimeoutError:
            _log_failure(turn, LlmTimeout("the title took too long"))
        except ChatAssistError as error:
            _log_failure(turn, error)
        except Exception:  # the runner of title tasks: a defect of ours
            log.exception("title failed", extra=_about(turn))

    async def _made(self, turn: Turn, spoken: str) -> str:
        """Return a title by the model; empty where none is wanted any more, or the model gave none."""
        message = turn.message
        session = await self._stores.saved.read(lambda tx: tx.sessions.get(message.session_id, message.user_id))
        if self._model is None or session.title_source is not TitleSource.QUESTION:
            return ""
        answer = ""
        async with aclosing(self._model.stream(title_prompt(message.content, spoken))) as chunks:
            async for chunk in chunks:
                answer += chunk.text
                if chunk.finish_reason is FinishReason.BLOCKED:
                    return ""
                if chunk.finish_reason or len(answer) > ANSWER_CHARS:
                    break
        return title_of(answer)

    async def _keep(self, turn: Turn, title: str) -> bool:
        """Store a title, unless the session has another one. Raises MessageNotFound where its turn is not to be told.

        That is one that was deleted, failed or withdrawn meanwhile. It is looked at last: by then its session is held.
        """

        async def work(tx: Transaction) -> bool:
            stored = await tx.sessions.entitle(turn.message.session_id, title)
            now = await tx.turns.find(turn.reply.id, turn.message.user_id)
            if now is None or not (now.speaks or now.reply.status is Status.RUNNING):
                raise MessageNotFound
            return stored

        return await self._stores.saved.write(work)

    async def _tell(self, production: Production, title: str) -> None:
        """Tell of a stored title, unless the reply is about to end: the number after its last event is its end's."""
        if not production.ending:
            told = Titled(production.turn.message.session_id, title)
            production.seq = await self._feed.append(production.turn.reply.id, told)


def _about(turn: Turn) -> Mapping[str, str]:
    return {"reply_id": turn.reply.id}


def _log_failure(turn: Turn, error: ChatAssistError) -> None:
    log.warning("title failed", extra={**_about(turn), "reason": error.slug, "detail": str(error)})
