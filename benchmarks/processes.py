"""The processes of a run, each alone in its job: vendor, service, floor and load; and what a process has cost.

Linux only: CPU is read from the process's own clock, memory from `/proc`.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from sqlalchemy import URL

from benchmarks.load import Plan, Report
from benchmarks.script import MODEL
from benchmarks.world import SECRET, free_port

POOL_SIZE = "DATABASE__POOL_SIZE"
ROOT = Path(__file__).parents[1]
_SECONDS_TO_START = 30.0
_SECONDS_TO_STOP = 10.0


class Failed(Exception):
    """A process did not do its job; the text says what it said."""


class Process:
    """A server on a port of its own. Ended by its own pid only."""

    def __init__(self, command: Sequence[str], folder: Path, *, port: int, variables: Mapping[str, str]) -> None:
        self.port = port
        self._log = folder / f"{port}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, "-m", *command],
                cwd=folder,
                env=_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ready(self, path: str) -> Self:
        """Return once a GET of that path answers. Raises Failed."""
        until = time.monotonic() + _SECONDS_TO_START
        while self._process.poll() is None and time.monotonic() < until:
            try:
                self.get(path)
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
            else:
                return self
        self.__exit__()  # nobody has entered it yet who would end it
        raise Failed(f"a server did not start:\n{self.log()}")

    def get(self, path: str) -> str:
        """Return the body of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        """Return the end of what the process has logged, without what is no trouble."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if '"level": "info"' not in line)[-3000:]

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, of all threads."""
        clock = (~self._process.pid << 3) | 2  # the kernel's name of a process's CPU clock; /proc counts in 10 ms
        return time.clock_gettime(clock)

    @property
    def resident(self) -> int:
        """Bytes of memory held now."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Load:
    """One run of the load generator."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            env=_environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin  # noqa: S101 - a pipe, as asked
        self._process.stdin.write(json.dumps(asdict(plan)))
        self._process.stdin.close()
        self._process.stdin = None

    @property
    def running(self) -> bool:
        """Whether it is not over yet."""
        return self._process.poll() is None

    def report(self) -> Report:
        """Wait for the end, and return what was seen. Raises Failed."""
        said, complaint = self._process.communicate()
        if self._process.returncode:
            raise Failed(f"the load broke off:\n{complaint[-3000:]}")
        return Report(**json.loads(said))


def start_vendor(folder: Path) -> Process:
    """Start the loopback vendor."""
    port = free_port()
    return Process(["benchmarks.vendor", str(port)], folder, port=port, variables={}).ready("/held")


def start_floor(folder: Path, url: URL, vendor: Process, variables: Mapping[str, str]) -> Process:
    """Start the floor on a database; of the service's variables it knows the size of the pool."""
    port = free_port()
    database = url.render_as_string(hide_password=False)
    command = ["benchmarks.floor", str(port), database, str(vendor.port), SECRET, variables.get(POOL_SIZE, "10")]
    return Process(command, folder, port=port, variables={}).ready("/")


def start_service(folder: Path, url: URL, vendor: Process, variables: Mapping[str, str]) -> Process:
    """Start the service as an operator would in production, its log in a file; only its limits are off."""
    return _start_service("chatassist", folder, url, vendor, variables)


def start_bare(folder: Path, url: URL, vendor: Process, variables: Mapping[str, str]) -> Process:
    """Start the service with nothing around its chat model."""
    return _start_service("benchmarks.bare", folder, url, vendor, variables)


def _start_service(module: str, folder: Path, url: URL, vendor: Process, variables: Mapping[str, str]) -> Process:
    port = free_port()
    settings = {
        "ENV": "production",
        "HTTP__PORT": str(port),
        "DATABASE__URL": url.render_as_string(hide_password=False),
        "TOKEN__SECRET": SECRET,
        "WECHAT__APPID": "bench",
        "WECHAT__SECRET": "bench",
        "LLM__BASE_URL": f"http://127.0.0.1:{vendor.port}/v1",
        "LLM__API_KEY": "bench",
        "LLM__MODEL": MODEL,
        "LIMITS__SENDS_PER_MINUTE": "0",
        "LIMITS__READS_PER_MINUTE": "0",
        **variables,
    }
    named = {f"CHATASSIST_{name}": value for name, value in settings.items()}
    return Process([module, "serve"], folder, port=port, variables=named).ready("/readyz")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHATASSIST_")}
    return {**inherited, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **variables}
