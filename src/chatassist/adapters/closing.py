"""Closing what may hold something, by whoever built it or wrapped it."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Closable(Protocol):
    """What holds connections, or a thread."""

    async def aclose(self) -> None:
        """Let go of them."""


async def close(built: object) -> None:
    """Close what can be closed; adapters that hold nothing have nothing to close."""
    if isinstance(built, Closable):
        await built.aclose()
