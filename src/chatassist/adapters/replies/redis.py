"""Feeds that other instances can follow: held in this process as in memory, and shipped to Redis besides.

Who follows a reply of this process never waits for Redis, nor does who produces it. What instances ask each other goes
through one stream that all of them read, as long as somebody awaits `stop_requests`.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

from chatassist.adapters.redis import PREFIX, RedisAway, RedisLink, RedisRefused
from chatassist.adapters.replies.memory import MemoryReplyFeed
from chatassist.adapters.replies.redis_copies import Copies
from chatassist.adapters.replies.redis_shipper import Shipper
from chatassist.adapters.seal import Seal
from chatassist.domain.ports.replies import Event, Numbered, ReplyFeed

_STOPS = f"{PREFIX}stops"
_KEPT_STOPS = 1_000
_PAUSE = 0.1  # seconds before the next try
_BLOCK = 500  # ms; shorter than the link's patience


class RedisReplyFeed(ReplyFeed):
    """Feeds of this process in memory, of others through Redis; without Redis, those of this process alone."""

    def __init__(self, memory: MemoryReplyFeed, link: RedisLink, seal: Seal) -> None:
        self._memory = memory
        self._link = link
        self._shipper = Shipper(link, seal)
        self._copies = Copies(link, seal)
        self._me = secrets.token_hex(8).encode()
        self._awaited: dict[bytes, asyncio.Future[int]] = {}  # last numbers, by question

    async def open(self, reply_id: str, after: int) -> None:
        """Begin the feed here, and tell the others soon."""
        await self._memory.open(reply_id, after)
        self._shipper.open(reply_id, after)

    async def append(self, reply_id: str, *events: Event) -> int:
        """Add events here, and ship them soon."""
        last = await self._memory.append(reply_id, *events)
        self._shipper.append(reply_id, events)
        return last

    async def read(self, reply_id: str, after: int, wait: float) -> Sequence[Numbered] | None:
        """Read what is held here, else what another instance shipped: it may have restarted a reply of ours."""
        now = asyncio.get_running_loop().time
        until = now() + wait
        found = await self._memory.read(reply_id, after, wait)
        if found is not None:
            return found
        return await self._copies.read(reply_id, after, max(until - now(), 0.0))

    async def last(self, reply_id: str, wait: float) -> int | None:
        """Look here, else ask all other instances: what they shipped so far may be less than they have told."""
        if (here := await self._memory.last(reply_id, wait)) is not None:
            return here
        question = secrets.token_hex(8)  # an answer that is on its way already may be too old
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._awaited[question.encode()] = answer
        try:
            async with asyncio.timeout(wait):
                await self._say("reply", "", "ask", reply_id, "question", question)
                return await answer
        except (TimeoutError, RedisAway, RedisRefused):
            return None
        finally:
            del self._awaited[question.encode()]

    async def request_stop(self, reply_id: str) -> None:
        """Ask all other instances; while Redis is away, nobody."""
        with contextlib.suppress(RedisAway, RedisRefused):
            await self._say("reply", reply_id)

    async def stop_requests(self) -> AsyncIterator[str]:
        """Yield what others ask from now on, whatever happens to Redis meanwhile."""
        cursor = b""
        while True:
            try:
                cursor = cursor or await self._newest_stop()
                found = await self._link.ask("XREAD", "BLOCK", _BLOCK, "STREAMS", _STOPS, cursor)
            except (RedisAway, RedisRefused):
                await self._link.recovered()
                await asyncio.sleep(_PAUSE)
                continue
            for name, fields in (entry for _, entries in found or () for entry in entries):
                cursor = name
                if fields[b"from"] == self._me:
                    continue
                if b"question" in fields:
                    await self._hear(fields)
                else:
                    yield fields[b"reply"].decode()

    async def aclose(self) -> None:
        """Ship what waits, and end what runs; the link is left to who opened it."""
        await self._shipper.aclose()
        await self._copies.aclose()

    async def _say(self, *fields: str | bytes | int) -> None:
        await self._link.ask("XADD", _STOPS, "MAXLEN", "~", _KEPT_STOPS, "*", *fields, "from", self._me)

    async def _hear(self, fields: Mapping[bytes, bytes]) -> None:
        """Take an answer, or give one to a question for the last number of a reply that is produced here."""
        question = fields[b"question"]
        if number := fields.get(b"last"):
            answer = self._awaited.get(question)
            if answer and not answer.done():
                answer.set_result(int(number))
        elif (last := await self._memory.last(fields[b"ask"].decode(), 0)) is not None:
            with contextlib.suppress(RedisAway, RedisRefused):
                await self._say("reply", "", "question", question, "last", last)

    async def _newest_stop(self) -> bytes:
        newest = await self._link.ask("XREVRANGE", _STOPS, "+", "-", "COUNT", 1)
        return bytes(newest[0][0]) if newest else b"0-0"
