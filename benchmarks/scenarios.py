"""Turns that come as fast as they can. Each scenario gives all subjects the same work in turn, several times."""

from collections.abc import Iterator, Mapping

from benchmarks.bench import BARE, SUBJECTS, Bench, Figure, Rounds, rounds_of
from benchmarks.floor import BLOCKING, STREAM
from benchmarks.processes import Process
from benchmarks.script import Pace

Servers = Mapping[str, Process]


def turn(bench: Bench, servers: Servers, connections: int) -> Iterator[Figure]:
    """Measure a blocking turn whose vendor answers at once."""
    turns, rounds = {1: (150, 3), 32: (24, 3), 256: (6, 3)}[connections]
    if bench.quick:
        turns, rounds = max(turns // 3, 2), 1
    seen = rounds_of(SUBJECTS, units := ("CPU per turn", "p50", "p99", "p99 : p50", "turns/s"))
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
    """Measure turns whose vendor takes a second: all before the first word, or in 20 pieces spread over it.

    Those who send begin within a second of each other, so that what is measured is a steady flow and no stampede.
    """
    scenario, pace = ("spread", Pace(20, 50, 50)) if spread else ("slow", Pace(20, 1000, 0))
    turns, rounds = (4, 1) if bench.quick else (16, 2)
    seen = rounds_of(SUBJECTS, ("turns/s", "p99", "CPU per turn"))
    for number in range(rounds):
        for subject in SUBJECTS:
            bench.tell(f"{scenario} vendor, {bench.database}: {subject}, round {number + 1} of {rounds}")
            cpu, report = bench.cost(servers[subject], pace, connections=connections, turns=turns, arriving=1.0)
            seen["turns/s"][subject].append(report.rate)
            seen["p99"][subject].append(report.p99)
            seen["CPU per turn"][subject].append(cpu)
    for name, unit in (("turns/s", "/s"), ("p99", "ms"), ("CPU per turn", "ms")):
        yield bench.figure(scenario, connections, name, unit, seen[name])


def deltas(bench: Bench, servers: Servers, connections: int) -> Iterator[Figure]:
    """Measure what one more delta costs when they come together: the same text in 20 and in 200 pieces."""
    few, many = Pace(20), Pace(200)
    turns, rounds = (3, 1) if bench.quick else (12, 3)
    for door, subjects in ((BLOCKING, SUBJECTS), (STREAM, bench.relays)):
        seen: Rounds = {subject: [] for subject in subjects}
        for number in range(rounds):
            for subject in subjects:
                bench.tell(f"deltas, {bench.database}: {subject} {door}, round {number + 1} of {rounds}")
                costs = [
                    bench.cost(servers[subject], pace, connections=connections, turns=turns, door=door)[0]
                    for pace in (few, many)
                ]
                seen[subject].append(1000 * (costs[1] - costs[0]) / (many.pieces - few.pieces))
        yield bench.figure(f"deltas{', relayed' if door == STREAM else ''}", connections, "CPU per delta", "µs", seen)


def wrappers(bench: Bench) -> Iterator[Figure]:
    """Measure what failover, breaker and cap cost a turn: the service beside one whose chat model is bare.

    The difference is less than what CPU figures vary by, so there are many short rounds, and who begins alternates.
    """
    subjects, size = ("service", BARE), 32
    rounds = 2 if bench.quick else 12
    paces = {"CPU per turn": Pace(20), "of 200 deltas": Pace(200)}
    seen = rounds_of(subjects, tuple(paces))
    with bench.start("service") as service, bench.start(BARE) as bare:
        servers = dict(zip(subjects, (service, bare), strict=True))
        for number in range(rounds):
            bench.tell(f"wrappers, {bench.database}: round {number + 1} of {rounds}")
            for name, pace in paces.items():
                for subject in subjects if number % 2 else reversed(subjects):
                    seen[name][subject].append(bench.cost(servers[subject], pace, connections=size, turns=16)[0])
    for name in paces:
        yield bench.figure("wrappers", size, name, "ms", seen[name])
