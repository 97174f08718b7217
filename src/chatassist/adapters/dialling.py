"""Connects a TCP socket to a host that may have several addresses, of which some may be dead (RFC 8305).

uvloop's own way tries them one after another, so that one dead IPv6 route would use up the whole connect timeout.
"""

import asyncio
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

_HEAD_START = 0.25  # seconds that an address has for itself

Address = tuple[int, int, int, str, Any]


async def dial(host: str, port: int) -> socket.socket:
    """Return a connected socket. Raises OSError, that of the first address that failed; who calls bounds the time."""
    waiting = _in_turns(await _resolve(host, port))
    trying: set[asyncio.Task[socket.socket]] = set()
    failures: list[OSError] = []
    won: socket.socket | None = None
    try:
        while won is None and (waiting or trying):
            if waiting:
                trying.add(asyncio.create_task(_connect(waiting.pop(0))))
            done, trying = await asyncio.wait(
                trying, timeout=_HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                won = _settle(task, failures, won)
    finally:
        _give_up(trying)
    if won is None:
        raise failures[0] if failures else OSError("the host has no address")
    return won


async def _resolve(host: str, port: int) -> Sequence[Address]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _connect(address: Address) -> socket.socket:
    family, kind, proto, _, peer = address
    made = socket.socket(family, kind, proto)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, peer)
    except BaseException:
        made.close()
        raise
    return made


def _settle(
    task: asyncio.Task[socket.socket], failures: list[OSError], won: socket.socket | None
) -> socket.socket | None:
    """Return the socket to keep: the first one; a second is closed."""
    error = task.exception()
    if isinstance(error, OSError):
        failures.append(error)
        return won
    made = task.result()
    if won is None:
        return made
    made.close()
    return won


def _give_up(trying: set[asyncio.Task[socket.socket]]) -> None:
    for task in trying:
        task.cancel()
        task.add_done_callback(_discard)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _in_turns(found: Sequence[Address]) -> list[Address]:
    """Let families alternate, beginning with the one that the resolver prefers."""
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]
