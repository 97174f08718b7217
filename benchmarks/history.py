"""Reading what was said: pages of one who said much against those of one who said little, and a search against LIKE.

All requests go over one connection, one after the other, those that are compared in turn: what disturbs one disturbs
the other. A search is measured against the statement that a bare server would have to send all the same.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import quote

import asyncmy
from sqlalchemy import URL

from benchmarks.bench import Bench, Figure, rounds_of
from benchmarks.client import Connection
from benchmarks.library import LITTLE, MUCH, TURNS, Reader, filled
from benchmarks.processes import Failed, Process, start_service

PAGE = 20
LOOKED_THROUGH = 10_000
HITS = 16
KEYWORD = "time? #5990"
"""In so many of the messages that one request looks through. They fill no page, so that it looks through them all."""
_NEWEST = "SELECT id FROM messages WHERE user_id = %s ORDER BY id DESC LIMIT 1 OFFSET %s"
_BARE = (
    "SELECT id, content FROM messages FORCE INDEX (ix_messages_user_id_id) WHERE user_id = %s AND id >= %s"
    " AND content LIKE %s ORDER BY id DESC LIMIT 20"
)
Asked = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A line of the table: what is asked for in turn; the last one is what the others are measured against."""

    scenario: str
    asked: Mapping[str, Asked]
    bare: str = ""
    """The one that the service has nothing to do with."""

    @property
    def served(self) -> Sequence[str]:
        """What the service answers."""
        return [name for name in self.asked if name != self.bare]


def history(bench: Bench) -> Iterator[Figure]:
    """Measure first pages and searches, in a database of their own."""
    url = bench.url.set(database="library")
    bench.tell(f"laying out {2 * TURNS + LITTLE:,} messages")
    much, little = filled(url)
    with start_service(bench.folder, url, bench.vendor, {}) as server:
        yield from asyncio.run(_measured(bench, server, url, (much, little)))


async def _measured(bench: Bench, server: Process, url: URL, readers: tuple[Reader, Reader]) -> list[Figure]:
    connection = await Connection.to(server.port)
    database = await asyncmy.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, db=url.database, charset="utf8mb4",
        autocommit=True,
    )  # fmt: skip
    figures: list[Figure] = []
    try:
        for compared in await _everything(connection, database, readers):
            figures += await _compare(bench, server, compared)
    finally:
        await database.ensure_closed()
        connection.close()
    return figures


async def _everything(connection: Connection, database: Any, readers: tuple[Reader, Reader]) -> Sequence[Compared]:
    much, _ = readers

    def pages(path: str) -> Mapping[str, Asked]:
        named = zip((f"{MUCH:,} messages", f"{LITTLE:,} messages"), readers, strict=True)
        return {name: _asking(connection, reader, path.format(reader.session_id), PAGE) for name, reader in named}

    path = f"/v1/chat/search?keyword={quote(KEYWORD)}"
    like = await _like(database, much)
    return (
        Compared(scenario="first page of sessions", asked=pages("/v1/chat/sessions")),
        Compared(scenario="first page of history", asked=pages("/v1/chat/history?sessionId={}")),
        Compared(
            scenario="search",
            asked={"service": _asking(connection, much, path, HITS), "bare LIKE": like},
            bare="bare LIKE",
        ),
    )


def _asking(connection: Connection, reader: Reader, path: str, items: int) -> Asked:
    """Return what asks for a page and makes sure that it is whole."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {reader.token}\r\n\r\n".encode()

    async def ask() -> None:
        check(await connection.exchange(request), items)

    return ask


async def _like(database: Any, reader: Reader) -> Asked:
    """Return what looks through the same rows by hand."""
    cursor = database.cursor()
    await cursor.execute(_NEWEST, (reader.user_id, LOOKED_THROUGH - 1))
    [(boundary,)] = await cursor.fetchall()

    async def ask() -> None:
        await cursor.execute(_BARE, (reader.user_id, boundary, f"%{KEYWORD}%"))
        if len(await cursor.fetchall()) != HITS:
            raise Failed("LIKE does not find what is there")

    return ask


async def _compare(bench: Bench, server: Process, compared: Compared) -> Sequence[Figure]:
    """Ask in turn, many times; return latencies, and what the service had to do with it."""
    rounds, times = (1, 10) if bench.quick else (5, 40)
    seen = rounds_of(tuple(compared.asked), ("p50",)) | rounds_of(compared.served, ("CPU per request",))
    for number in range(rounds):
        bench.tell(f"{compared.scenario}, round {number + 1} of {rounds}")
        latencies: dict[str, list[float]] = {name: [] for name in compared.asked}
        cpu = dict.fromkeys(compared.asked, 0.0)
        for _ in range(times):
            for name, ask in compared.asked.items():
                began, spent = time.perf_counter(), server.cpu
                await ask()
                latencies[name].append(1000 * (time.perf_counter() - began))
                cpu[name] += 1000 * (server.cpu - spent)
        for name in compared.asked:
            seen["p50"][name].append(median(latencies[name]))
        for name in compared.served:
            seen["CPU per request"][name].append(cpu[name] / times)
    return [bench.figure(compared.scenario, 1, name, "ms", values) for name, values in seen.items()]


def check(body: bytes, items: int) -> None:
    """Raise Failed unless an answer is a success with so many items."""
    answer = json.loads(body)
    if answer["code"] != 200 or len(answer["data"]["items"]) != items:
        raise Failed(f"no page of {items} items: {body[:500].decode(errors='replace')}")
