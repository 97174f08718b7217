"""What is measured. Each scenario gives service and floor the same work in turn, several times, and keeps the medians.

Of the service, only the blocking door exists so far. **When it streams, add "service" to RELAYS**, and nothing else:
the relay's cost per delta and its memory per stream are measured then as the floor's already are.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sqlalchemy import URL

from benchmarks.floor import BLOCKING, STREAM
from benchmarks.load import Plan, Report
from benchmarks.processes import Failed, Load, Process, start_floor, start_service
from benchmarks.script import Pace
from benchmarks.world import SEATS, rewind

SUBJECTS = ("service", "floor")
RELAYS = ("floor",)
"""Who has a door that streams."""

_START: Mapping[str, Callable[[Path, URL, Process], Process]] = {"service": start_service, "floor": start_floor}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table; a subject that lacks the door is missing in `medians`."""

    scenario: str
    database: str
    connections: int
    name: str
    unit: str
    medians: Mapping[str, float]
    rounds: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One database with what runs on it."""

    folder: Path
    url: URL
    seats: Path
    vendor: Process
    database: str
    quick: bool
    tell: Callable[[str], None]

    def start(self, subject: str) -> Process:
        """Start service or floor, and let both caches and code warm up."""
        server = _START[subject](self.folder, self.url, self.vendor)
        for door in (BLOCKING, *([STREAM] if subject in RELAYS else [])):
            _reported(self.load(server, Pace(), connections=8, turns=10, door=door), server)
        return server

    def load(self, server: Process, pace: Pace, *, connections: int, turns: int, door: str = BLOCKING) -> Load:
        """Start the load on a server; the history is as it was before."""
        rewind(self.url)
        plan = Plan(
            port=server.port,
            path=door,
            question=pace.question(),
            connections=connections,
            turns=turns,
            seats=str(self.seats),
        )
        return Load(plan)

    def cost(
        self, server: Process, pace: Pace, *, connections: int, turns: int, door: str = BLOCKING
    ) -> tuple[float, Report]:
        """Return ms of the server's CPU per turn, and what the load saw."""
        load = self.load(server, pace, connections=connections, turns=turns, door=door)
        before = server.cpu
        report = _reported(load, server)
        return 1000 * (server.cpu - before) / report.turns, report

    def figure(
        self, scenario: str, connections: int, name: str, unit: str, rounds: Mapping[str, Sequence[float]]
    ) -> Figure:
        """Return a line of the table."""
        return Figure(
            scenario=scenario,
            database=self.database,
            connections=connections,
            name=name,
            unit=unit,
            medians={subject: median(seen) for subject, seen in rounds.items()},
            rounds=rounds,
        )


Servers = Mapping[str, Process]
Rounds = dict[str, list[float]]


def _rounds(subjects: Sequence[str], names: Sequence[str]) -> dict[str, Rounds]:
    return {name: {subject: [] for subject in subjects} for name in names}


def turn(bench: Bench, servers: Servers, connections: int) -> Iterator[Figure]:
    """Measure a blocking turn whose vendor answers at once."""
    turns, rounds = {1: (150, 3), 32: (24, 3), 256: (6, 3)}[connections]
    if bench.quick:
        turns, rounds = max(turns // 3, 2), 1
    seen = _rounds(SUBJECTS, units := ("CPU per turn", "p50", "p99", "p99 : p50", "turns/s"))
    for number in range(rounds):
        for subject in SUBJECTS:
            bench.tell(f"turn, {connections} connections, {bench.database}: {subject}, round {number + 1} of {rounds}")
            cpu, report = bench.cost(servers[subject], Pace(), connections=connections, turns=turns)
            figures = (cpu, report.p50, report.p99, report.p99 / report.p50, report.rate)
            for name, figure in zip(units, figures, strict=True):
                seen[name][subject].append(figure)
    for name, unit in zip(units, ("ms", "ms", "ms", "", "/s"), strict=True):
        yield bench.figure("turn", connections, name, unit, seen[name])


def slow(bench: Bench, servers: Servers, connections: int, *, spread: bool = False) -> Iterator[Figure]:
    """Measure turns whose vendor takes a second: all before the first word, or in 20 pieces spread over it."""
    scenario, pace = ("spread", Pace(20, 50, 50)) if spread else ("slow", Pace(20, 1000, 0))
    turns, rounds = (4, 1) if bench.quick else (8, 2)
    seen = _rounds(SUBJECTS, ("turns/s", "p99", "CPU per turn"))
    for number in range(rounds):
        for subject in SUBJECTS:
            bench.tell(f"{scenario} vendor, {bench.database}: {subject}, round {number + 1} of {rounds}")
            cpu, report = bench.cost(servers[subject], pace, connections=connections, turns=turns)
            seen["turns/s"][subject].append(report.rate)
            seen["p99"][subject].append(report.p99)
            seen["CPU per turn"][subject].append(cpu)
    for name, unit in (("turns/s", "/s"), ("p99", "ms"), ("CPU per turn", "ms")):
        yield bench.figure(scenario, connections, name, unit, seen[name])


def deltas(bench: Bench, servers: Servers, connections: int) -> Iterator[Figure]:
    """Measure what one more delta costs when they come together: the same text in 20 and in 200 pieces."""
    few, many = Pace(20), Pace(200)
    turns, rounds = (3, 1) if bench.quick else (12, 3)
    for door, subjects in ((BLOCKING, SUBJECTS), (STREAM, RELAYS)):
        seen: Rounds = {subject: [] for subject in subjects}
        for number in range(rounds):
            for subject in subjects:
                bench.tell(f"deltas, {bench.database}: {subject} {door}, round {number + 1} of {rounds}")
                costs = [
                    bench.cost(servers[subject], pace, connections=connections, turns=turns, door=door)[0]
                    for pace in (few, many)
                ]
                seen[subject].append(1000 * (costs[1] - costs[0]) / (many.pieces - few.pieces))
        yield bench.figure(f"deltas{_suffix(door)}", connections, "CPU per delta", "µs", seen)


def open_replies(bench: Bench) -> Iterator[Figure]:
    """Measure what an open reply holds, and what a delta costs that comes alone, every 500 ms."""
    held = 100 if bench.quick else min(1000, SEATS)
    for door, subjects in ((BLOCKING, SUBJECTS), (STREAM, RELAYS)):
        memory: Rounds = {}
        cpu: Rounds = {}
        for subject in subjects:
            bench.tell(f"{held} open replies, {bench.database}: {subject} {door}")
            with bench.start(subject) as server:
                kib, microseconds = _held(bench, server, door, held)
            memory[subject], cpu[subject] = [kib], [microseconds]
        yield bench.figure(f"open{_suffix(door)}", held, "memory per reply", "KiB", memory)
        yield bench.figure(f"open{_suffix(door)}", held, "CPU per delta", "µs", cpu)


def _held(bench: Bench, server: Process, door: str, held: int) -> tuple[float, float]:
    """Return KiB per open reply, and µs of CPU per delta over some seconds in which all are open."""
    pace = Pace(12 if bench.quick else 60, 500, 500)
    empty = server.resident
    load = bench.load(server, pace, connections=held, turns=1, door=door)
    while _counts(bench)[0] < held:
        if not load.running:
            _reported(load, server)
            raise Failed("the replies were never all open at once: the machine is too busy")
        time.sleep(0.1)
    time.sleep(0.5)  # the claims of the last ones
    before, said = server.cpu, _counts(bench)[1]
    time.sleep(2.5 if bench.quick else 8)
    spent, (still, said_since) = server.cpu - before, _counts(bench)
    full = server.resident
    if still < held:
        raise Failed("replies ended while they were measured: the machine is too busy")
    _reported(load, server)
    return (full - empty) / 1024 / held, 1e6 * spent / (said_since - said)


def _reported(load: Load, server: Process) -> Report:
    """Return what a load saw; where it broke off, say what the server has logged."""
    try:
        return load.report()
    except Failed as failure:
        raise Failed(f"{failure}\nthe server's log ends with:\n{server.log()}") from failure


def _counts(bench: Bench) -> tuple[int, int]:
    """Return how many replies the vendor holds open, and how many deltas it ever said."""
    held, said = bench.vendor.get("/held").split()
    return int(held), int(said)


def _suffix(door: str) -> str:
    return ", relayed" if door == STREAM else ""
