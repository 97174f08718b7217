"""A client of streams that knows nothing but the contract's rules, and minds that they are kept."""

import asyncio
from collections.abc import Sequence

from chatassist.domain.model import User
from chatassist.domain.ports.replies import Delta, Ended, Numbered, Replace, Thinking
from chatassist.domain.turns import End
from tests.unit.worlds import World


class Client:
    """Puts a reply together, across any number of streams of it."""

    def __init__(self, user: User, reply_id: str, after: int = 0) -> None:
        self.user = user
        self.reply_id = reply_id
        self.seq = after
        self.text = ""
        self.thinking = ""
        self.whole = True  # whether every event was seen, one by one
        self.end: End | None = None  # of the stream that was read last
        self._reading: asyncio.Task[None] | None = None

    async def comes(self, world: World) -> None:
        """Go on with the reply where it left, over another stream."""
        await self.leaves()
        self.end = None
        _, events = await world.replies.follow(self.user, self.reply_id, self.seq)

        async def read() -> None:
            async for batch in events:
                self.take(batch)

        self._reading = asyncio.create_task(read())

    async def leaves(self) -> None:
        """Break the stream off, if there is one."""
        if self._reading:
            self._reading.cancel()
            [outcome] = await asyncio.gather(self._reading, return_exceptions=True)
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome

    async def hears_the_end(self) -> End:
        """Return the one end that its stream has."""
        assert self._reading
        await asyncio.wait_for(self._reading, 5)
        assert self.end, "a stream ended without an end"
        return self.end

    def take(self, batch: Sequence[Numbered]) -> None:
        for numbered in batch:
            assert self.end is None, "something came after the end"
            self._count(numbered)
            match numbered.event:
                case Delta(text):
                    self.text += text
                case Thinking(text):
                    self.thinking += text
                case Replace(content, reason):
                    self.text = content
                    self.whole = self.whole and reason == "moderation"
                case Ended(end):
                    self.end = end
                    assert self.text == end.content
                    assert end.seq == numbered.seq
                    if self.whole and end.finish_reason != "blocked":
                        assert self.thinking == end.thinking

    def _count(self, numbered: Numbered) -> None:
        seen_before = isinstance(numbered.event, Ended) and numbered.seq == self.seq
        next_one = numbered.seq == self.seq + 1
        jump = numbered.seq > self.seq and isinstance(numbered.event, Replace)
        assert seen_before or next_one or jump, f"{numbered} after {self.seq}"
        self.seq = numbered.seq
