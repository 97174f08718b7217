"""One database with what runs on it, and how a figure is taken there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sqlalchemy import URL

from benchmarks.floor import BLOCKING, STREAM
from benchmarks.load import Plan, Report
from benchmarks.processes import Failed, Load, Process, start_bare, start_floor, start_service
from benchmarks.script import Pace
from benchmarks.world import rewind

SUBJECTS = ("service", "floor")
WITH_REDIS = "redis"
"""The service once more, with its feeds in a Redis too."""
BARE = "bare"
"""The service with its vendor's adapter alone: no failover, no breaker, no cap."""

_START: Mapping[str, Callable[[Path, URL, Process, Mapping[str, str]], Process]] = {
    "service": start_service,
    WITH_REDIS: start_service,
    BARE: start_bare,
    "floor": start_floor,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. Of its subjects, the last is what the others are measured against."""

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
    redis: str | None
    """Its address, where one is installed."""
    database: str
    quick: bool
    tell: Callable[[str], None]

    @property
    def relays(self) -> Sequence[str]:
        """Who relays deltas in a way of its own."""
        return (*SUBJECTS[:1], WITH_REDIS, *SUBJECTS[1:]) if self.redis else SUBJECTS

    def start(self, subject: str, **variables: str) -> Process:
        """Start a subject, and let both caches and code warm up."""
        if subject == WITH_REDIS:
            variables = {**variables, "REDIS__URL": self.redis or ""}
        server = _START[subject](self.folder, self.url, self.vendor, variables)
        for door in (BLOCKING, STREAM):
            reported(self.load(server, Pace(), connections=8, turns=10, door=door), server)
        return server

    def load(
        self, server: Process, pace: Pace, *, connections: int, turns: int, door: str = BLOCKING, arriving: float = 0.0
    ) -> Load:
        """Start the load on a server; the history is as it was before."""
        rewind(self.url)
        plan = Plan(
            port=server.port,
            path=door,
            question=pace.question(),
            connections=connections,
            turns=turns,
            seats=str(self.seats),
            arriving=arriving,
        )
        return Load(plan)

    def cost(
        self, server: Process, pace: Pace, *, connections: int, turns: int, door: str = BLOCKING, arriving: float = 0.0
    ) -> tuple[float, Report]:
        """Return ms of the server's CPU per turn, and what the load saw."""
        load = self.load(server, pace, connections=connections, turns=turns, door=door, arriving=arriving)
        before = server.cpu
        report = reported(load, server)
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


Rounds = dict[str, list[float]]


def rounds_of(subjects: Sequence[str], names: Sequence[str]) -> dict[str, Rounds]:
    """Return where the rounds of figures with these names go."""
    return {name: {subject: [] for subject in subjects} for name in names}


def reported(load: Load, server: Process) -> Report:
    """Return what a load saw; where it broke off, say what the server has logged."""
    try:
        return load.report()
    except Failed as failure:
        raise Failed(f"{failure}\nthe server's log ends with:\n{server.log()}") from failure
