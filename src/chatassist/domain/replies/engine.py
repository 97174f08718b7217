"""Owns the tasks that produce replies: claims them, streams them from the model, ends each exactly once.

A reply belongs to the service, not to the connection that asked for it; nothing is open while a vendor is awaited.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from chatassist.domain.errors import (
    ChatAssistError,
    CommitUnknown,
    ContextTooLong,
    Internal,
    LlmTimeout,
    LlmUnavailable,
    ModelFailed,
    ReplyInterrupted,
    ReplyNotStored,
    ShuttingDown,
    StoreUnavailable,
)
from chatassist.domain.model import Prompt
from chatassist.domain.ports.llm import ChatModel, Chunk
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.replies import Delta, Ended, Replace, ReplyFeed
from chatassist.domain.replies.claims import Accepted, Claim
from chatassist.domain.replies.lease import Lease
from chatassist.domain.turns import End, FinishReason, Reply, Status, Turn, Usage

T = TypeVar("T")
log = logging.getLogger(__name__)

NUMBERS_PER_ATTEMPT = 1_000_000
"""Attempt n (from 0) numbers its events from n times this, plus one."""

CLOSING_SECONDS = 3.0
"""How long interrupted replies may take to store their end when the process goes away."""

MODEL_CHARS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRules:
    """Bounds of one reply: seconds in all, characters kept, what is said instead of refused content."""

    deadline: float = 120.0
    max_chars: int = 64_000
    refusal: str = "抱歉，这个问题我无法回答。"
    store_retry: float = 1.0
    """Seconds between tries to store an end while the database is away."""


@dataclass(slots=True, eq=False)
class _Production:
    """One reply in the making. Deadline, interruption and (later) stop are one way out: the scope's time is over."""

    scope: asyncio.Timeout
    instance_id: str
    text: str = ""
    finish: FinishReason | None = None
    model: str | None = None
    usage: Usage | None = None
    cause: type[ChatAssistError] = LlmTimeout

    def take(self, chunk: Chunk, max_chars: int) -> str:
        """Keep what a chunk brings; return the text to show, cut where the reply is full."""
        shown = chunk.text[: max_chars - len(self.text)]
        self.text += shown
        self.model = (chunk.model or "")[:MODEL_CHARS] or self.model
        self.usage = chunk.usage or self.usage
        self.finish = FinishReason.LENGTH if len(shown) < len(chunk.text) else chunk.finish_reason
        return shown

    def interrupt(self) -> None:
        """End it as interrupted, now."""
        if not self.scope.expired():
            self.cause = ReplyInterrupted
            self.scope.reschedule(0)


class ReplyEngine:
    """Starts replies and answers for their end."""

    def __init__(self, store: Store, feed: ReplyFeed, model: ChatModel, *, lease: Lease, rules: ReplyRules) -> None:
        self._store = store
        self._feed = feed
        self._model = model
        self._lease = lease
        self._clock = lease.clock
        self._rules = rules
        self._tasks: set[asyncio.Task[None]] = set()
        self._productions: set[_Production] = set()
        self._draining = False
        self._closing = False

    async def start(self, claim: Claim) -> Accepted:
        """Run `claim` and produce its reply; return once the claim is committed. Raises what the claim raises.

        The task makes the claim itself: were it the request, a cancellation between COMMIT and the start of the task
        would leave a reply that nobody runs.
        """
        self.check_open()
        accepted: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._run(claim, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(accepted)

    def check_open(self) -> None:
        """Make sure that new replies are taken. Raises ShuttingDown."""
        if self._draining:
            raise ShuttingDown

    def interrupt_lapsed(self) -> None:
        """End as interrupted what others no longer believe that this process runs: its vendor calls are pointless."""
        for production in self._productions:
            if not self._lease.vouches_for(production.instance_id):
                production.interrupt()

    async def drain(self, seconds: float) -> None:
        """Take no new replies, let the running ones finish for so long, then end the rest as interrupted.

        Once that is done, again does nothing; meanwhile, with fewer seconds, it cuts the waiting short.
        """
        self._draining = True
        if self._closing:
            return
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._closing = True
        for production in self._productions:
            production.interrupt()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)

    async def _run(self, claim: Claim, accepted: asyncio.Future[Accepted]) -> None:
        try:
            taken = await self._make(claim)
            reply = taken.turn.reply
            await self._feed.open(reply.id, reply.attempt * NUMBERS_PER_ATTEMPT)
        except Exception as error:  # noqa: BLE001 - the runner of reply tasks: whoever asked is told
            accepted.set_exception(error)
            accepted.exception()  # marks it as seen, for the caller may be gone
            return
        accepted.set_result(taken)
        shown = await self._produce(reply, taken.prompt)
        end = await self._settle(taken.turn, shown)
        differs = end.content is not None and end.content != shown.content  # somebody else ended it, with other text
        await self._feed.append(reply.id, *([Replace(end.content or "", "resync")] if differs else []), Ended(end))
        log.info("reply ended", extra={"reply_id": reply.id, "status": end.status, "reason": end.reason})

    async def _produce(self, reply: Reply, prompt: Prompt) -> End:
        production = _Production(asyncio.timeout(self._rules.deadline), reply.instance_id)
        try:
            async with production.scope:
                self._productions.add(production)
                if self._closing:
                    production.interrupt()
                await self._stream(reply, prompt, production)
        except TimeoutError:
            return self._failed(production, production.cause())
        except (ModelFailed, ContextTooLong) as error:
            log.warning("model failed", extra={"reply_id": reply.id, "reason": error.slug, "detail": str(error)})
            return self._failed(production, error)
        except Exception:  # a defect of ours: the text so far was shown, so it is kept
            log.exception("reply failed", extra={"reply_id": reply.id})
            return self._failed(production, Internal())
        finally:
            self._productions.discard(production)
        return await self._completed(reply, production)

    async def _stream(self, reply: Reply, prompt: Prompt, production: _Production) -> None:
        async with aclosing(self._model.stream(prompt)) as chunks:
            async for chunk in chunks:
                if shown := production.take(chunk, self._rules.max_chars):
                    await self._feed.append(reply.id, Delta(shown))
                if production.finish:
                    return
        raise LlmUnavailable("the model ended without a finish reason")

    async def _completed(self, reply: Reply, production: _Production) -> End:
        if production.finish is FinishReason.BLOCKED:
            production.text = self._rules.refusal
            await self._feed.append(reply.id, Replace(production.text, "moderation"))
        elif not production.text.strip():
            return self._failed(production, LlmUnavailable("the model answered nothing"))
        return End(
            status=Status.COMPLETE,
            finish_reason=production.finish or FinishReason.STOP,
            content=production.text,
            at=self._clock(),
            model=production.model,
            usage=production.usage,
        )

    def _failed(self, production: _Production, error: ChatAssistError) -> End:
        end = End.failure(error, self._clock())
        return replace(end, content=production.text, model=production.model, usage=production.usage)

    async def _make(self, claim: Claim) -> Accepted:
        try:
            return await claim.make(await self._lease.ensure())
        except CommitUnknown:
            found = await self._patiently(claim.find)
        if found is None:
            raise StoreUnavailable("the claim was not committed")
        return found

    async def _settle(self, turn: Turn, end: End) -> End:
        """Store the end; where a defect prevents that, store and tell the defect in its place."""
        failed = replace(End.failure(Internal(), self._clock()), content="")  # the text may be what cannot be stored
        for attempted in (end, failed):
            try:
                return await self._store_end(turn, attempted)
            except Exception:  # the runner of reply tasks: no follower is left without an end
                log.exception("storing a reply failed", extra={"reply_id": turn.reply.id})
        return failed

    async def _store_end(self, turn: Turn, end: End) -> End:
        """Store the end once; return what the reply ended as."""
        reply = turn.reply

        async def store() -> End:
            if await self._store.apply(lambda tx: tx.replies.finish(reply.id, reply.attempt, end)):
                return end
            return await self._other_end(turn)

        try:
            return await self._patiently(store)
        except StoreUnavailable:
            return replace(End.failure(ReplyNotStored(), self._clock()), content=end.content)

    async def _other_end(self, turn: Turn) -> End:
        """Return how somebody else (or an earlier try whose COMMIT we did not hear of) ended the reply."""
        stored = await self._store.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))
        return (stored and stored.reply.end) or End.failure(ReplyInterrupted(), self._clock())

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run `attempt` until the database answers, for as long as others believe this process alive.

        After that the reply is theirs to end, and StoreUnavailable is raised.
        """
        while True:
            try:
                return await attempt()
            except StoreUnavailable:
                if self._closing or not self._lease.held:
                    raise
            await asyncio.sleep(self._rules.store_retry)
