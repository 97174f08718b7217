"""A session's history in pages of messages: which turns to look at, and where a page begins and ends.

A turn fills two slots: its question, and its reply in the version that it shows. A limit counts slots, so a page may
begin or end amid a turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chatassist.domain.turns import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A turn, and the ids of all versions of its reply, oldest first."""

    turn: Turn
    versions: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a message stands in its session. All versions of a reply stand in the same place."""

    position: int
    is_reply: bool

    @property
    def slot(self) -> int:
        """The place as one number; the slots of deleted turns stay empty."""
        return 2 * self.position + self.is_reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """So many turns in a row: `older`, the youngest up to and with `position`, else the oldest from there on.

    Without a position: the youngest of all.
    """

    limit: int
    position: int | None = None
    older: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A message on a page: a turn's question, or its reply."""

    turn: Turn
    is_reply: bool

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(position=self.turn.message.position, is_reply=self.is_reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What is on a page, oldest first, and whether there is more on either side of it."""

    entries: Sequence[Entry]
    more_before: bool
    more_after: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A page that is wanted: `limit` messages right before an anchor, or right after it; without one, the newest."""

    limit: int
    anchor: Place | None = None
    older: bool = True

    @property
    def stretch(self) -> Stretch:
        """The turns that fill it, and one slot more, even where the anchor's own turn gives one or none."""
        position = self.anchor.position if self.anchor else None
        return Stretch(limit=self.limit // 2 + 2, position=position, older=self.older)

    def cut(self, turns: Sequence[Turn]) -> Cut:
        """Return the page, out of the turns of `stretch`, oldest first."""
        entries = [Entry(turn, is_reply) for turn in turns for is_reply in (False, True)]
        if self.anchor is None:
            fit = entries
        elif self.older:
            fit = [entry for entry in entries if entry.place.slot < self.anchor.slot]
        else:
            fit = [entry for entry in entries if entry.place.slot > self.anchor.slot]
        more = len(fit) > self.limit
        if self.older:
            return Cut(entries=fit[-self.limit :], more_before=more, more_after=self.anchor is not None)
        return Cut(entries=fit[: self.limit], more_before=True, more_after=more)
