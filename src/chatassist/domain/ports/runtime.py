"""Time and ids, so that tests can hold both still."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

Clock = Callable[[], datetime]
"""Return the present moment, aware and in UTC."""

NewId = Callable[[], str]
"""Return a new UUIDv7 as 32 hex digits."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Both, for what needs both."""

    clock: Clock
    new_id: NewId
