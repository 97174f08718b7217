"""Runs the yardstick and prints its table: `python -m benchmarks --help`. Fails on errors, never on speed."""

import json
import logging
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import hearing, history, scenarios, streams
from benchmarks.bench import Bench, Figure
from benchmarks.processes import Failed, start_vendor
from benchmarks.world import prepared, started_redis


class Scenario(StrEnum):
    """What can be measured alone."""

    TURN = "turn"
    SLOW = "slow"
    SPREAD = "spread"
    DELTAS = "deltas"
    OPEN = "open"
    FIRST = "first"
    POOL = "pool"
    STREAMS = "streams"
    HISTORY = "history"
    HEARING = "hearing"
    WRAPPERS = "wrappers"


class Database(StrEnum):
    """Where the rows lie."""

    MARIADB = "mariadb"
    SQLITE = "sqlite"


CONNECTIONS = (1, 32, 256)
CONNECTIONS_QUICK = (32,)
_LONG = (Scenario.SPREAD, Scenario.STREAMS, Scenario.HISTORY, Scenario.HEARING, Scenario.WRAPPERS)
"""What a quick run leaves out, unless it is asked for."""
_OPEN: Mapping[Scenario, Callable[[Bench], Iterator[Figure]]] = {
    Scenario.OPEN: streams.open_replies,
    Scenario.FIRST: streams.first,
    Scenario.POOL: streams.pool,
    Scenario.STREAMS: streams.many,
    Scenario.HISTORY: history.history,
    Scenario.HEARING: hearing.hearing,
    Scenario.WRAPPERS: scenarios.wrappers,
}


def main(
    only: Annotated[list[Scenario] | None, typer.Option(help="Measure this alone; may be repeated")] = None,
    connections: Annotated[list[int] | None, typer.Option(help="For `turn`: 1, 32 or 256; may be repeated")] = None,
    database: Annotated[list[Database] | None, typer.Option(help="May be repeated; only `turn` runs on both")] = None,
    quick: Annotated[
        bool, typer.Option(help="Rough and fast: MariaDB, 32 connections, one round of few turns")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures of every round there")] = None,
) -> None:
    """Compare the service with the floor. Absolute figures depend on the machine; look at the ratios."""
    wanted = only or [each for each in Scenario if not (quick and each in _LONG)]
    databases = database or list(Database)[: 1 if quick else None]
    asked = connections or list(CONNECTIONS_QUICK if quick else CONNECTIONS)
    if not set(asked) <= set(CONNECTIONS):
        raise typer.BadParameter(f"connections are of {CONNECTIONS}")
    logging.getLogger("asyncmy").setLevel(logging.ERROR)  # MariaDB has a remark on the name of a primary key
    _raise_file_limit()
    figures: list[Figure] = []
    try:
        for number, kind in enumerate(databases):
            here = [each for each in wanted if number == 0 or each is Scenario.TURN]
            figures += _measure(kind, here, asked, quick=quick) if here else ()
    except (Failed, RuntimeError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    for figure in figures:
        typer.echo(_line(figure))
    if json_file:
        json_file.write_text(json.dumps(_document(figures), indent=1, ensure_ascii=False))


def _measure(kind: Database, wanted: Sequence[Scenario], connections: Sequence[int], *, quick: bool) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatassist-bench-")))
        _tell(f"preparing {kind}")
        url, seats = stack.enter_context(prepared(kind, folder))
        vendor = stack.enter_context(start_vendor(folder))
        redis = stack.enter_context(started_redis(folder))
        if redis is None:
            _tell("no redis-server here (apt install redis-server): nothing is measured with Redis")
        bench = Bench(
            folder=folder, url=url, seats=seats, vendor=vendor, redis=redis, database=kind, quick=quick, tell=_tell
        )
        return list(_run(bench, wanted, connections))


def _run(bench: Bench, wanted: Sequence[Scenario], connections: Sequence[int]) -> Iterator[Figure]:
    if set(wanted) - set(_OPEN):
        with ExitStack() as stack:
            servers = {subject: stack.enter_context(bench.start(subject)) for subject in bench.relays}
            for count in connections if Scenario.TURN in wanted else ():
                yield from scenarios.turn(bench, servers, count)
            if Scenario.SLOW in wanted:
                yield from scenarios.slow(bench, servers, 256)
            if Scenario.SPREAD in wanted:
                yield from scenarios.slow(bench, servers, 256, spread=True)
            if Scenario.DELTAS in wanted:
                yield from scenarios.deltas(bench, servers, 32)
    for scenario, measure in _OPEN.items():
        if scenario in wanted:
            yield from measure(bench)


def _line(figure: Figure) -> str:
    what = f"{figure.scenario}, {figure.connections} connections, {figure.database}"
    shown = [f"{what:<42} {figure.name:<16}"]
    *_, (yardstick, least) = figure.medians.items()
    for subject, value in figure.medians.items():
        times = f" x{value / least:<5.2f}" if subject != yardstick and least > 0 else ""
        shown.append(f"{subject} {f'{value:.2f} {figure.unit}'.strip():>12}{times}")
    return "  ".join(shown)


def _document(figures: Sequence[Figure]) -> dict[str, object]:
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()}
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine,
            "figures": [asdict(figure) for figure in figures]}  # fmt: skip


def _raise_file_limit() -> None:
    """Let every process of the run open as many connections as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tell(what: str) -> None:
    typer.echo(what, err=True)


if __name__ == "__main__":
    typer.run(main)
