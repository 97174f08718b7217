"""Time and ids, so that tests can hold both still."""

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]
"""Return the present moment, aware and in UTC."""

NewId = Callable[[], str]
"""Return a new UUIDv7 as 32 hex digits."""
