"""A whole assistant on fakes: time stands still, ids count, the vendor plays scripts, the store fails on demand."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TypeVar
from zoneinfo import ZoneInfo

from chatassist.adapters.asr.none import NoListener, NoTranscriber
from chatassist.adapters.identity.jwt_tokens import JwtTokens
from chatassist.adapters.identity.local_login import LocalIdentity
from chatassist.adapters.limits.memory import MemoryLimiter
from chatassist.adapters.llm.scripted import Script, ScriptedChatModel, plays
from chatassist.adapters.persistence.ephemeral import EphemeralStore
from chatassist.adapters.persistence.memory import MemoryStore
from chatassist.adapters.persistence.places import OwnPlaces
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.adapters.sniff import recognise
from chatassist.domain.errors import CommitUnknown, StoreUnavailable
from chatassist.domain.model import Profile, Prompt, User
from chatassist.domain.ports.limits import Rule
from chatassist.domain.ports.llm import Chunk, Offer
from chatassist.domain.ports.moderation import Moderator
from chatassist.domain.ports.persistence import Store, Transaction
from chatassist.domain.ports.replies import Ended, Event
from chatassist.domain.ports.runtime import Runtime
from chatassist.domain.prompt import PromptRules
from chatassist.domain.replies.claiming import Claims
from chatassist.domain.replies.ends import Ends
from chatassist.domain.replies.engine import ReplyEngine, ReplyRules
from chatassist.domain.replies.follow import Follower
from chatassist.domain.replies.gate import Gate, MessageRules
from chatassist.domain.replies.lease import Lease
from chatassist.domain.replies.stop import Stopper
from chatassist.domain.replies.stores import Stores
from chatassist.domain.replies.titles import Titler, TitleRules
from chatassist.domain.services import Services
from chatassist.domain.services.accounts import AccountService
from chatassist.domain.services.deletions import DeletionService
from chatassist.domain.services.exports import ExportService
from chatassist.domain.services.history import HistoryService
from chatassist.domain.services.messages import MessageService, Sent
from chatassist.domain.services.models import ModelService
from chatassist.domain.services.replies import ReplyService
from chatassist.domain.services.search import SearchRules, SearchService
from chatassist.domain.services.sessions import SessionService
from chatassist.domain.services.speech import SpeechService
from chatassist.domain.services.usage import UsageService
from chatassist.domain.services.users import UserService
from chatassist.domain.turns import Draft, Turn
from chatassist.domain.upkeep import Upkeep
from chatassist.domain.usage import Calendar, Metering
from tests.builders import NOW

T = TypeVar("T")

PATIENCE = 5.0  # seconds that no test ever waits unless it fails
TOKEN_SECRET = "3f1b7c92e0a84d56b1c7f0d29e8a4b63"
TOKEN_LIFETIME = timedelta(days=7)
REFUSAL = "这个不行。"


async def until(condition: Callable[[], object]) -> None:
    """Let others run until the condition holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class CountingIds:
    """Ids in the order of their making."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self) -> str:
        self.made.append(f"{len(self.made) + 1:032x}")
        return self.made[-1]


METERING = Metering(lambda openid: f"pseudonym of {openid}", Calendar(ZoneInfo("Asia/Shanghai")))


class Fault(Enum):
    """What may happen to a unit of work."""

    AWAY = auto()  # the database does not answer
    LOST_BEFORE_COMMIT = auto()  # the connection broke during COMMIT, which did not happen
    LOST_AFTER_COMMIT = auto()  # the connection broke during COMMIT, which did happen
    DEFECT = auto()  # a programming error


class FaultyStore(Store):
    """A store that counts its units of work and fails as it is told: `faults` meet the next writes, one each."""

    def __init__(self, inner: Store | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.faults: deque[Fault | None] = deque()
        self.away = False
        self.closed_door: asyncio.Event | None = None  # writes wait for it
        self.open_units = 0
        self.written = 0  # units that were committed
        self.refused = 0  # units that were not, for a fault

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        if self.closed_door:
            await self.closed_door.wait()
        fault = self.faults.popleft() if self.faults else None
        if self.away or fault in (Fault.AWAY, Fault.LOST_BEFORE_COMMIT, Fault.DEFECT):
            self.refused += 1
            raise _REFUSALS[Fault.AWAY if self.away or fault is None else fault]
        self.open_units += 1
        try:
            result = await self.inner.write(work)
        finally:
            self.open_units -= 1
        self.written += 1
        if fault is Fault.LOST_AFTER_COMMIT:
            raise CommitUnknown
        return result

    async def apply(self, change: Callable[[Transaction], Awaitable[T]]) -> T:
        while True:
            with suppress(CommitUnknown):  # a lost connection repeats it
                return await self.write(change)

    async def read(self, query: Callable[[Transaction], Awaitable[T]]) -> T:
        if self.away:
            self.refused += 1
            raise StoreUnavailable
        self.open_units += 1
        try:
            return await self.inner.read(query)
        finally:
            self.open_units -= 1

    async def check(self) -> None:
        if self.away:
            raise StoreUnavailable


_REFUSALS: dict[Fault, type[Exception]] = {
    Fault.AWAY: StoreUnavailable,
    Fault.LOST_BEFORE_COMMIT: CommitUnknown,
    Fault.DEFECT: RuntimeError,
}


class WordList(Moderator):
    """Refuses texts with certain words, and remembers how often it was asked."""

    def __init__(self, *refused: str) -> None:
        self._refused = refused
        self.asked: list[tuple[str, str]] = []

    async def allows(self, text: str, openid: str) -> bool:
        self.asked.append((text, openid))
        return not any(word in text for word in self._refused)


class Vendor(ScriptedChatModel):
    """A scripted model whose script can be changed between calls, and whose calls are counted."""

    def __init__(self, script: Script) -> None:
        super().__init__(self._play)
        self.script = script
        self.prompts: list[Prompt] = []
        self.closed = 0
        self._calls: list[AsyncGenerator[Chunk, None]] = []  # held, so that only closing them ends them
        self.while_speaking: Callable[[], None] = lambda: None
        self.busy: Collection[str | None] = ()
        """Models that have no room."""
        self.places = math.inf

    def room(self, model: str | None) -> float:
        return 0 if model in self.busy else self.places

    @property
    def speaking(self) -> int:
        """How many calls are under way."""
        return len(self.prompts) - self.closed

    def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        self._calls.append(super().stream(prompt))
        return self._calls[-1]

    async def _play(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        self.prompts.append(prompt)
        try:
            async with aclosing(self.script(prompt)) as chunks:
                async for chunk in chunks:
                    self.while_speaking()
                    yield chunk
        finally:
            self.closed += 1


class WitnessedFeed(MemoryReplyFeed):
    """A feed that lets a test look at the world at the very moment a reply's end is announced, and ends its minute."""

    def __init__(self) -> None:
        super().__init__(later=lambda _, call: self._keep(call))
        self.at_end: Callable[[str, Ended], Awaitable[None]] | None = None
        self._kept: list[Callable[[], None]] = []

    def expire(self) -> None:
        """Forget what has ended: its minute is over."""
        for forget in self._kept[:]:
            forget()
        self._kept.clear()

    def _keep(self, call: Callable[[], None]) -> "Forgetting":
        self._kept.append(call)
        return Forgetting(self._kept, call)

    async def append(self, reply_id: str, *events: Event) -> int:
        for event in events:
            if isinstance(event, Ended) and self.at_end:
                await self.at_end(reply_id, event)
        return await super().append(reply_id, *events)


@dataclass
class Forgetting:
    """What a feed will do when a minute is over."""

    kept: list[Callable[[], None]]
    call: Callable[[], None]

    def cancel(self) -> None:
        if self.call in self.kept:
            self.kept.remove(self.call)


class TalkingFeed(WitnessedFeed):
    """A feed whose requests to stop reach all processes that have it."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    async def request_stop(self, reply_id: str) -> None:
        await self._heard.put(reply_id)

    async def stop_requests(self) -> AsyncIterator[str]:
        while True:
            yield await self._heard.get()


class World:
    """One process. `beside` makes another one on the same database, at the same time; `feed`, if they share one."""

    def __init__(
        self,
        *,
        script: Script | None = None,
        deadline: float = PATIENCE,
        max_chars: int = 64_000,
        models: Collection[str] = (),
        prompt: PromptRules | None = None,
        refused_words: Iterable[str] = (),
        limits: dict[Rule, int] | None = None,
        title_script: Script | None = None,
        title_rules: TitleRules | None = None,
        beside: "World | None" = None,
        feed: WitnessedFeed | None = None,
    ) -> None:
        self.clock: HandClock = beside.clock if beside else HandClock()
        self.ids: CountingIds = beside.ids if beside else CountingIds()
        self.store: FaultyStore = FaultyStore(beside.store.inner if beside else None)
        self.vendor = Vendor(script or plays("an answer"))
        self.feed = feed or WitnessedFeed()
        self.moderator = WordList(*refused_words)
        self.limiter = MemoryLimiter(limits or {}, monotonic=lambda: int(self.clock.now.timestamp() * 1_000_000_000))
        runtime = Runtime(self.clock, self.ids)
        self.lease = Lease(self.store, runtime, retry=0)
        self.unsaved: EphemeralStore = beside.unsaved if beside else EphemeralStore(self.clock)
        self.stores = Stores(self.store, self.unsaved, OwnPlaces())
        self.ends = Ends(self.stores, self.feed, self.lease)
        self.title_vendor = Vendor(title_script or plays("a title"))
        self.titler = Titler(
            self.stores, self.feed, self.title_vendor if title_script else None, rules=title_rules or TitleRules()
        )
        self.engine = ReplyEngine(
            self.stores,
            self.feed,
            self.vendor,
            lease=self.lease,
            ends=self.ends,
            titler=self.titler,
            rules=ReplyRules(deadline=deadline, max_chars=max_chars, refusal=REFUSAL),
        )
        self.follower = Follower(self.stores, self.feed, self.lease, self.ends, look_again=0.001)
        self.gate = Gate(self.limiter, self.moderator, self.vendor, MessageRules(content_chars=100, models=models))
        rules = replace(prompt or PromptRules(), models=models)
        claims = Claims(self.stores, runtime, rules=rules, metering=METERING)
        self.messages = MessageService(
            self.stores, self.engine, self.follower, gate=self.gate, claims=claims, patience=PATIENCE
        )
        stopper = Stopper(self.stores, self.engine, self.follower, feed=self.feed, ends=self.ends)
        self.replies = ReplyService(self.stores, self.engine, self.follower, gate=self.gate, stopper=stopper)
        tokens = JwtTokens(self.clock, secret=TOKEN_SECRET, lifetime=TOKEN_LIFETIME)
        self.users = UserService(self.store, LocalIdentity(), tokens, limiter=self.limiter, runtime=runtime)
        self.search = SearchService(self.store, self.limiter, SearchRules())
        offers = [Offer(model=name, name=name, default=not place) for place, name in enumerate(models)]
        self.models = ModelService(offers, limiter=self.limiter)
        self.deletions = DeletionService(self.stores, stopper, gate=self.gate, runtime=runtime)
        self.accounts = AccountService(self.stores, LocalIdentity(), stopper=stopper, gate=self.gate, clock=self.clock)
        self.sessions = SessionService(self.store, self.gate)
        self.history = HistoryService(self.store, self.follower)
        self.usage = UsageService(self.store, METERING, limiter=self.limiter, clock=self.clock)
        self.exports = ExportService(self.store, METERING, limiter=self.limiter, clock=self.clock)
        self.upkeep = Upkeep(self.stores, self.engine, self.lease)
        self.services = Services(
            self.store,
            self.engine,
            users=self.users,
            sessions=self.sessions,
            search=self.search,
            history=self.history,
            messages=self.messages,
            replies=self.replies,
            models=self.models,
            deletions=self.deletions,
            accounts=self.accounts,
            speech=SpeechService(
                NoTranscriber(), NoListener(), recognise, limiter=self.limiter, count=self.usage.count
            ),
            usage=self.usage,
            exports=self.exports,
        )

    async def __aenter__(self) -> "World":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave no reply behind."""
        self.store.away = False
        self.store.faults.clear()
        await self.engine.drain(0)

    async def somebody(self, name: str = "anna") -> User:
        """Return the user of a name."""
        return await self.users.ensure(name, Profile())

    async def send(self, user: User, text: str = "a question", **draft: str | None) -> Sent:
        """Send a message; the reply goes on by itself."""
        return await self.messages.send(user, Draft(text=text, **draft))

    async def ask(self, user: User, text: str = "a question", **draft: str | None) -> Turn:
        """Send a message and wait for the end of its reply."""
        return await self.end_of((await self.send(user, text, **draft)).turn)

    async def get(self, user: User, reply_id: str) -> Turn:
        """Return a reply as its user sees it now."""
        return (await self.replies.get(user, reply_id)).turn

    async def end_of(self, turn: Turn) -> Turn:
        """Return the turn once its reply has ended."""
        return await self.messages.settle(turn, PATIENCE)

    async def kept(self, turn: Turn) -> Turn | None:
        """Return the turn as the database holds it."""
        return await self.store.inner.read(lambda tx: tx.turns.find(turn.reply.id, turn.message.user_id))

    async def events(self, turn: Turn) -> list[Event]:
        """Return all events of a turn's reply, to the last."""
        return [numbered.event async for batch in self.replies.events(turn) for numbered in batch]
