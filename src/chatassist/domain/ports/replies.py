"""The feed of one reply: an append-only log of numbered events that any number of doors follow."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from chatassist.domain.turns import End


@dataclass(frozen=True, slots=True)
class Delta:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """More of what the model thinks, which is never part of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class Replace:
    """The whole text is now this. `reason`: `moderation`, `resync` or `restarted`."""

    content: str
    reason: str


@dataclass(frozen=True, slots=True)
class Titled:
    """The reply's session has a title by a model now, and it is stored. It is no part of the text."""

    session_id: str
    title: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The reply is over, and its end is stored. Always the last event of an attempt."""

    end: End


Event = Delta | Thinking | Replace | Titled | Ended


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event with its number. Numbers grow by one and jump only right before a Replace."""

    seq: int
    event: Event


class ReplyFeed(ABC):
    """Feeds of many replies. One writer each, any number of readers, none of whom can slow the writer."""

    @abstractmethod
    async def open(self, reply_id: str, after: int) -> None:
        """Begin the feed, or begin it again: the next event has number `after` + 1, and nothing earlier is held.

        Never raises: the reply is committed by then, and has to run. Where another process went further already,
        readers elsewhere keep to that: the higher number wins.
        """

    @abstractmethod
    async def append(self, reply_id: str, *events: Event) -> int:
        """Add events to a feed opened here, and return the last one's number. Waits for nobody, and never raises.

        After an Ended nothing is added until the feed is opened again, and what there is is held for a while only.
        """

    @abstractmethod
    async def read(self, reply_id: str, after: int, wait: float) -> Sequence[Numbered] | None:
        """Return the events numbered above `after`, waiting up to `wait` seconds for the first.

        Returns () after that much silence. Returns None when this feed cannot tell what comes after `after`: it is not
        held, or ended no later than that, or what it holds begins too late. Where events after `after` are no longer
        held one by one but their text is, the first event returned is a Replace with reason `resync` and all of it.
        """

    @abstractmethod
    async def last(self, reply_id: str, wait: float) -> int | None:
        """Return the number of the last event of a reply that goes on, by the word of the process that produces it.

        Returns None when it gives no word within `wait` seconds: it cannot be reached, or produces it no longer.
        """

    @abstractmethod
    async def request_stop(self, reply_id: str) -> None:
        """Ask whichever process produces the reply to stop it. May get lost, and never raises."""

    @abstractmethod
    def stop_requests(self) -> AsyncIterator[str]:
        """Yield the ids of replies that other processes asked to stop, without end; most are produced elsewhere."""
