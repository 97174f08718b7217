"""What a user used on a day. A day is the operator's, by one zone for all users."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

Pseudonym = Callable[[str], str]
"""Return what stands for an openid where the account may not show: the same for the same one, 64 characters at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Messages accepted, tokens as vendors count them or else as we estimate, milliseconds of audio understood."""

    messages: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    audio_ms: int = 0

    def __add__(self, other: "Used") -> "Used":
        """Return both together."""
        return Used(
            messages=self.messages + other.messages,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            audio_ms=self.audio_ms + other.audio_ms,
        )


ONE_MESSAGE = Used(messages=1)

Count = Callable[[str, Used], Awaitable[None]]
"""Add to what the person of an openid used today; does not fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Where use is counted. `subject` stands for the person, not for the account, so that it outlives that."""

    subject: str
    day: date


@dataclass(frozen=True, slots=True)
class Calendar:
    """Tells days apart."""

    zone: ZoneInfo

    def day(self, at: datetime) -> date:
        """Return the day that a moment belongs to."""
        return at.astimezone(self.zone).date()

    def end(self, day: date) -> datetime:
        """Return the moment at which a day is over."""
        return datetime.combine(day + timedelta(days=1), time(), self.zone)


@dataclass(frozen=True, slots=True)
class Metering:
    """Finds the meter of a person at a moment."""

    pseudonym: Pseudonym
    calendar: Calendar

    def meter(self, openid: str, at: datetime) -> Meter:
        """Return where use by this person at that moment is counted."""
        return Meter(subject=self.pseudonym(openid), day=self.calendar.day(at))
