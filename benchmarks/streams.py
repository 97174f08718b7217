"""Streams that are open together, as a city of users has them: slow to speak, and many.

Whoever opens 5,000 of them needs as many ephemeral ports towards the server, and the server as many towards its vendor
(28,000 are usual), 10,000 file descriptors in the server, and connections that are made some at a time, for a listener
queues no more than its backlog. A figure of streams is only taken when all of them ended with `done` and every word.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.bench import SUBJECTS, Bench, Figure, Rounds, reported, rounds_of
from benchmarks.floor import BLOCKING, STREAM
from benchmarks.load import Report
from benchmarks.processes import POOL_SIZE, Failed, Process
from benchmarks.script import Pace
from benchmarks.world import SEATS

_STREAMS = ("memory per reply", "CPU per delta", "first delta, p50", "first delta, p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many replies are open together, at what pace; they begin within `arriving` seconds of each other."""

    size: int
    pace: Pace
    door: str = STREAM
    arriving: float = 0.0
    watched: float = 8.0
    """Seconds in which deltas are counted, once all are open."""


def open_replies(bench: Bench) -> Iterator[Figure]:
    """Measure what an open reply holds, and what a delta costs that comes alone, every 500 ms."""
    size = 100 if bench.quick else min(1000, SEATS)
    for door, subjects in ((BLOCKING, SUBJECTS), (STREAM, bench.relays)):
        scenario = f"open{', relayed' if door == STREAM else ''}"
        seen = rounds_of(subjects, _STREAMS[:2])
        for subject in subjects:
            bench.tell(f"{size} open replies, {bench.database}: {subject} {door}")
            crowd = Crowd(size=size, pace=Pace(60, 500, 500), door=door)
            with bench.start(subject) as server:
                kib, microseconds, _ = _gathered(bench, server, crowd)
            for name, value in zip(_STREAMS, (kib, microseconds), strict=False):
                seen[name][subject].append(value)
        yield from _figures(bench, scenario, size, seen)


def many(bench: Bench) -> Iterator[Figure]:
    """Measure 5,000 streams on one worker, a delta every 4 s each; they arrive within 40 s."""
    size, arriving = (1000, 8.0) if bench.quick else (5000, 40.0)
    crowd = Crowd(size=size, pace=Pace(20, 500, 4000), arriving=arriving)
    yield from _crowded(bench, "streams", crowd)


def pool(bench: Bench) -> Iterator[Figure]:
    """Measure 2,000 streams that share five database connections."""
    size, arriving = (400, 2.0) if bench.quick else (2000, 10.0)
    crowd = Crowd(size=size, pace=Pace(30, 500, 1000), arriving=arriving)
    yield from _crowded(bench, "pool of 5", crowd, **{POOL_SIZE: "5"})


def first(bench: Bench) -> Iterator[Figure]:
    """Measure the time to the first delta, of a vendor that speaks at once, and of one that takes 200 ms to think.

    Then it speaks for a second, which is the same for all subjects, and so is how often a stream begins: 16 a second.
    """
    size, rounds = 16, 1 if bench.quick else 3
    for scenario, pace in (("first", Pace(20, 0, 50)), ("first, thinking", Pace(20, 200, 50))):
        seen: dict[str, Rounds] = rounds_of(SUBJECTS, _STREAMS[2:])
        for subject in SUBJECTS:
            with bench.start(subject) as server:
                for number in range(rounds):
                    bench.tell(f"{scenario}, {bench.database}: {subject}, round {number + 1} of {rounds}")
                    load = bench.load(server, pace, connections=size, turns=8, door=STREAM, arriving=1.0)
                    report = reported(load, server)
                    for name, value in zip(_STREAMS[2:], (report.first50, report.first99), strict=True):
                        seen[name][subject].append(value)
        yield from _figures(bench, scenario, size, seen)


def _crowded(bench: Bench, scenario: str, crowd: Crowd, **variables: str) -> Iterator[Figure]:
    seen: dict[str, Rounds] = rounds_of(SUBJECTS, _STREAMS)
    for subject in SUBJECTS:
        bench.tell(f"{scenario}: {crowd.size} streams, {bench.database}: {subject}")
        with bench.start(subject, **variables) as server:
            kib, microseconds, report = _gathered(bench, server, crowd)
        for name, value in zip(_STREAMS, (kib, microseconds, report.first50, report.first99), strict=True):
            seen[name][subject].append(value)
    yield from _figures(bench, scenario, crowd.size, seen)


def _figures(bench: Bench, scenario: str, size: int, seen: dict[str, Rounds]) -> Iterator[Figure]:
    for name, unit in zip(_STREAMS, ("KiB", "µs", "ms", "ms"), strict=True):
        if name in seen:
            yield bench.figure(scenario, size, name, unit, seen[name])


def _gathered(bench: Bench, server: Process, crowd: Crowd) -> tuple[float, float, Report]:
    """Return KiB per open reply, µs of CPU per delta over some seconds in which all are open, and what the load saw."""
    empty = server.resident
    load = bench.load(server, crowd.pace, connections=crowd.size, turns=1, door=crowd.door, arriving=crowd.arriving)
    while _counts(bench)[0] < crowd.size:
        if not load.running:
            reported(load, server)
            raise Failed("the replies were never all open at once: the machine is too busy")
        time.sleep(0.1)
    time.sleep(0.5)  # the claims of the last ones
    before, said = server.cpu, _counts(bench)[1]
    time.sleep(crowd.watched)
    spent, (still, said_since) = server.cpu - before, _counts(bench)
    full = server.resident
    if still < crowd.size:
        raise Failed("replies ended while they were measured: the machine is too busy")
    return (full - empty) / 1024 / crowd.size, 1e6 * spent / (said_since - said), reported(load, server)


def _counts(bench: Bench) -> tuple[int, int]:
    """Return how many replies the vendor holds open, and how many deltas it ever said."""
    held, said = bench.vendor.get("/held").split()
    return int(held), int(said)
