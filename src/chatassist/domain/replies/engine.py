"""Owns the tasks that produce replies: claims them, streams them from the model, ends each exactly once.

A reply belongs to the service, not to the connection that asked for it; nothing is open while a vendor is awaited.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from chatassist.domain.errors import (
    CommitUnknown,
    ContextTooLong,
    Internal,
    LlmUnavailable,
    ModelFailed,
    ShuttingDown,
    StoreUnavailable,
)
from chatassist.domain.ports.llm import ChatModel
from chatassist.domain.ports.persistence import Store
from chatassist.domain.ports.replies import Replace, ReplyFeed
from chatassist.domain.replies.claims import Accepted, Claim
from chatassist.domain.replies.ends import Ends
from chatassist.domain.replies.lease import Lease
from chatassist.domain.replies.production import Production
from chatassist.domain.replies.stores import Stores
from chatassist.domain.replies.titles import Titler
from chatassist.domain.turns import End, FinishReason, Reply

log = logging.getLogger(__name__)

CLOSING_SECONDS = 2.0
"""How long interrupted replies may take to store their end when the process goes away: with what the HTTP door, the
store and the lease take to close, less than five seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRules:
    """Bounds of one reply: seconds in all, characters kept, what is said instead of refused content."""

    deadline: float = 120.0
    max_chars: int = 64_000
    refusal: str = "抱歉，这个问题我无法回答。"


class ReplyEngine:
    """Starts replies and answers for their end."""

    def __init__(
        self,
        stores: Stores,
        feed: ReplyFeed,
        model: ChatModel,
        *,
        lease: Lease,
        ends: Ends,
        titler: Titler,
        rules: ReplyRules,
    ) -> None:
        self._stores = stores
        self._feed = feed
        self._model = model
        self._lease = lease
        self._ends = ends
        self._titler = titler
        self.clock = lease.clock
        self._rules = rules
        self._tasks: set[asyncio.Task[None]] = set()
        self._productions: dict[str, Production] = {}  # by the reply's id
        self._draining = False

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

    def last_number(self, reply: Reply) -> int:
        """Return the highest number a follower can have seen of this reply: exact where it is produced here."""
        production = self._producing(reply)
        return production.seq if production else reply.last_seq

    async def stop(self, reply: Reply) -> bool:
        """Stop an attempt that is produced here, and return once its end is stored; False where it is not."""
        production = self._producing(reply)
        if production is None:
            return False
        production.stop()
        await production.over.wait()
        return True

    async def stop_all(self, user_id: str) -> None:
        """Stop all of a user's replies that are produced here, saved or not, and return once their ends are stored."""
        his = [one for one in self._productions.values() if one.turn.message.user_id == user_id]
        for production in his:
            production.stop()
        for production in his:
            await production.over.wait()

    def give_up(self, reply_id: str) -> bool:
        """End what is produced here of a reply that is gone: its vendor call is pointless; False where nothing is."""
        production = self._productions.get(reply_id)
        if production:
            production.interrupt()
        return production is not None

    async def hear_stops(self) -> None:
        """Stop what other processes ask to be stopped, without end."""
        async for reply_id in self._feed.stop_requests():
            if production := self._productions.get(reply_id):
                production.stop()

    async def save(self) -> None:
        """Store the texts that grew, all in one statement. A save that fails is no failure of a reply."""
        for store, saved in ((self._stores.saved, True), (self._stores.unsaved, False)):
            grown = [one for one in self._live(saved=saved) if one.seq > one.saved_seq]
            if grown:
                await _save(store, grown)

    async def look_for_stopped(self) -> None:
        """Give up what somebody else has ended: its vendor call is pointless."""
        live = self._live(saved=True)
        for instance_id in {one.turn.reply.instance_id for one in live}:  # more than one only after a lease lapsed
            running = await self._running(instance_id)
            for production in live:
                reply = production.turn.reply
                if reply.instance_id == instance_id and reply.id not in running:
                    production.interrupt()

    def interrupt_lapsed(self) -> None:
        """End as interrupted what others no longer believe that this process runs: its vendor calls are pointless."""
        for production in list(self._productions.values()):
            if not self._lease.vouches_for(production.turn.reply.instance_id):
                production.interrupt()

    async def drain(self, seconds: float) -> None:
        """Take no new replies, let the running ones finish for so long, then end the rest as interrupted.

        Once that is done, again does nothing; meanwhile, with fewer seconds, it cuts the waiting short.
        """
        self._draining = True
        if self._lease.leaving:
            return
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._lease.leaving = True
        for production in list(self._productions.values()):
            production.interrupt()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
        await self._titler.close()

    async def _running(self, instance_id: str) -> Collection[str]:
        return await self._stores.saved.read(lambda tx: tx.replies.running(instance_id))

    def _producing(self, reply: Reply) -> Production | None:
        """Return what makes this attempt here; an earlier one may still be made by a process that slept."""
        production = self._productions.get(reply.id)
        return production if production and production.turn.reply.attempt == reply.attempt else None

    def _live(self, *, saved: bool) -> list[Production]:
        return [one for one in self._productions.values() if not one.ending and one.turn.saved is saved]

    async def _run(self, claim: Claim, accepted: asyncio.Future[Accepted]) -> None:
        try:
            await self._yield_to(claim.reply_id)
            taken = await self._make(claim)
            seq = await self._begin(taken.turn.reply)
        except Exception as error:  # noqa: BLE001 - the runner of reply tasks: whoever asked is told
            accepted.set_exception(error)
            accepted.exception()  # marks it as seen, for the caller may be gone
            return
        accepted.set_result(taken)
        scope = asyncio.timeout(self._rules.deadline)
        production = Production(
            turn=taken.turn,
            prompt=taken.prompt,
            meter=taken.meter,
            scope=scope,
            max_chars=self._rules.max_chars,
            seq=seq,
        )
        self._productions[claim.reply_id] = production
        self._titler.watch(production)
        try:
            end = await self._ends.settle(production, await self._produce(production))
            self._titler.ended(production, end)
        finally:
            del self._productions[claim.reply_id]
            production.over.set()

    async def _yield_to(self, reply_id: str) -> None:
        """Wait for the end of an earlier attempt at the same reply, which others have ended already."""
        if earlier := self._productions.get(reply_id):
            earlier.interrupt()
            await earlier.over.wait()

    async def _begin(self, reply: Reply) -> int:
        """Open the feed; return the number of the last event in it."""
        await self._feed.open(reply.id, reply.first_seq)
        if reply.attempt:
            return await self._feed.append(reply.id, Replace("", "restarted"))
        return reply.first_seq

    async def _produce(self, production: Production) -> End:
        about = {"reply_id": production.turn.reply.id}
        try:
            async with production.scope:
                if self._lease.leaving:
                    production.interrupt()
                await self._stream(production)
        except TimeoutError:
            if production.finish is None:  # else only the hanging up was cut short
                return production.cut_short(self.clock())
        except (ModelFailed, ContextTooLong) as error:
            log.warning("model failed", extra={**about, "reason": error.slug, "detail": str(error)})
            return production.failed(error, self.clock())
        except Exception:  # a defect of ours
            log.exception("reply failed", extra=about)
            return production.failed(Internal(), self.clock())
        finally:
            production.ending = True
        return await self._completed(production)

    async def _stream(self, production: Production) -> None:
        reply_id = production.turn.reply.id
        async with aclosing(self._model.stream(production.prompt)) as chunks:
            async for chunk in chunks:
                if events := production.take(chunk):
                    production.seq = await self._feed.append(reply_id, *events)
                if production.finish:
                    return
        raise LlmUnavailable("the model ended without a finish reason")

    async def _completed(self, production: Production) -> End:
        if production.finish is FinishReason.BLOCKED:
            withdrawn = production.block(self._rules.refusal)
            production.seq = await self._feed.append(production.turn.reply.id, withdrawn)
        elif not production.text.strip():
            log.warning("model said nothing", extra={"reply_id": production.turn.reply.id, "finish": production.finish})
            if production.finish is not FinishReason.LENGTH:  # it may have thought until it was cut off
                return production.failed(LlmUnavailable(), self.clock())
        return production.completed(self.clock())

    async def _make(self, claim: Claim) -> Accepted:
        instance_id = await self._lease.ensure()
        try:
            return await claim.make(instance_id)
        except CommitUnknown:
            found = await self._lease.patiently(lambda: claim.find(instance_id))
            await self._lease.patiently(self._lease.secure)
        if found is None:
            raise StoreUnavailable("the claim was not committed")
        return found


async def _save(store: Store, grown: Sequence[Production]) -> None:
    texts = [one.so_far() for one in grown]
    await store.apply(lambda tx: tx.replies.save(texts))
    for one, text in zip(grown, texts, strict=True):
        one.saved_seq = text.seq
