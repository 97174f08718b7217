"""The load: a process of bare keep-alive connections that send turns and check every answer.

A plan comes as JSON on standard input, and a report goes as JSON to standard output. An answer that is not 200,
complete and exactly the vendor's text ends the run: a benchmark that measures errors is a defect.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from benchmarks.client import Connection
from benchmarks.script import INPUT_TOKENS, OUTPUT_TOKENS, TEXT

_DELTA = b"event: delta"
CONNECTING = 64  # at a time: more would overrun the listener's backlog


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send: `turns` by each of so many connections. `seats`: a file of [token, session id], one after another.

    Each turn takes the next seat, so that no more turns than needed run at once in a session. `arriving`: seconds
    within which the connections, all open by then, send their first turn, one after another.
    """

    port: int
    path: str
    question: str
    connections: int
    turns: int
    seats: str
    arriving: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was seen from outside: latencies in ms, turns a second over the middle half of the run.

    `first50`, `first99`: ms from a request to the first delta of its answer, or to its end where it comes whole.
    """

    turns: int
    p50: float
    p99: float
    rate: float
    first50: float
    first99: float


@dataclass(slots=True)
class _Times:
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


class WrongAnswer(Exception):
    """An answer that a benchmark must not measure."""


async def run(plan: Plan, requests: Sequence[bytes]) -> Report:
    """Send everything that is planned, with the seats' requests. Raises WrongAnswer, ConnectionError."""
    check = check_stream if plan.path.endswith("/stream") else check_blocking
    connections = await _connect(plan)
    times = _Times()

    async def converse(number: int, connection: Connection) -> None:
        await asyncio.sleep(plan.arriving * number / plan.connections)
        for turn in range(plan.turns):
            request = requests[(turn * plan.connections + number) % len(requests)]
            started = time.perf_counter()
            body, first = await _exchange(connection, request)
            times.ends.append(time.perf_counter())
            times.latencies.append(times.ends[-1] - started)
            times.firsts.append(first - started)
            check(connection.status, body)

    async with asyncio.TaskGroup() as group:
        for number, connection in enumerate(connections):
            group.create_task(converse(number, connection))
    for connection in connections:
        connection.close()
    return _report(times)


async def _exchange(connection: Connection, request: bytes) -> tuple[bytes, float]:
    """Return the whole body of an answer, and when the first delta in it came, or the end."""
    connection.send(request)
    parts, first = [], 0.0
    while part := await connection.read():
        parts.append(part)
        if not first and _DELTA in part:  # an event comes in one piece
            first = time.perf_counter()
    return b"".join(parts), first or time.perf_counter()


async def _connect(plan: Plan) -> Sequence[Connection]:
    made: list[Connection] = []
    while len(made) < plan.connections:
        missing = min(CONNECTING, plan.connections - len(made))
        made += await asyncio.gather(*(Connection.to(plan.port) for _ in range(missing)))
    return made


def _request(plan: Plan, token: str, session_id: str) -> bytes:
    body = json.dumps({"content": plan.question, "sessionId": session_id}, ensure_ascii=False).encode()
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def check_blocking(status: int, body: bytes) -> None:
    """Raise WrongAnswer unless a turn is complete, with all of its text and counts."""
    data = json.loads(body).get("data") or {} if status == 200 else {}
    usage = {"inputTokens": INPUT_TOKENS, "outputTokens": OUTPUT_TOKENS}
    if data.get("status") != "complete" or data["reply"]["content"] != TEXT or data["usage"] != usage:
        raise WrongAnswer(f"{status} {body[:500].decode(errors='replace')}")


def check_stream(status: int, body: bytes) -> None:
    """Fold the events as the contract says. Raises WrongAnswer unless the last is `done` and the text whole."""
    text, last = "", ""
    for event in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        last = fields.get("event", last)
        if fields.get("event") == "delta":
            text += json.loads(fields["data"])["text"]
    if status != 200 or last != "done" or text != TEXT:
        raise WrongAnswer(f"{status} {body[-500:].decode(errors='replace')}")


def _report(times: _Times) -> Report:
    ends, latencies, firsts = times.ends, sorted(times.latencies), sorted(times.firsts)
    quarter = len(ends) // 4
    middle = ends[-quarter - 1] - ends[quarter - 1] if quarter else ends[-1] - ends[0] + latencies[0]
    return Report(
        turns=len(ends),
        p50=_percentile(latencies, 50),
        p99=_percentile(latencies, 99),
        rate=(len(ends) - 2 * quarter) / middle,
        first50=_percentile(firsts, 50),
        first99=_percentile(firsts, 99),
    )


def _percentile(seconds: Sequence[float], percent: int) -> float:
    """Return a percentile, in ms, of what is sorted."""
    return 1000 * seconds[min(len(seconds) - 1, len(seconds) * percent // 100)]


def main() -> None:
    """Run one plan."""
    plan = Plan(**json.load(sys.stdin))
    requests = [_request(plan, token, session_id) for token, session_id in json.loads(Path(plan.seats).read_text())]
    report = uvloop.run(run(plan, requests))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main()
