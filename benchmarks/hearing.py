"""What it costs to listen to recordings before an engine is asked, and what is left for everybody else meanwhile.

The engine is the loopback vendor, which answers at once. Each upload has a prompt of its own, so that none is answered
from memory.
"""

import asyncio
import itertools
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from benchmarks.bench import Bench, Figure, rounds_of
from benchmarks.client import Connection
from benchmarks.processes import Failed, Process, start_service

SECONDS = 10
UPLOADS = 50
_BOUNDARY = "boundary-of-the-form"
_PATH = "/v1/ai/speech-to-text"
_SAID = "The quick brown fox jumps over the lazy dog, and then it sleeps. "
_PAUSE = 0.005  # seconds between two requests of one who only looks


def hearing(bench: Bench) -> Iterator[Figure]:
    """Measure uploads one after the other, and then who else is served while 50 are under way at all times."""
    if not shutil.which("espeak-ng"):
        bench.tell("no espeak-ng here (apt install espeak-ng): nothing is measured of recordings")
        return
    variables = {
        "ASR__ENGINE": "whisper_api",
        "ASR__BASE_URL": f"http://127.0.0.1:{bench.vendor.port}/v1",
        "ASR__MODEL": "bench",
        "LIMITS__SPEECH_PER_MINUTE": "0",
    }
    with start_service(bench.folder, bench.url, bench.vendor, variables) as server:
        yield from asyncio.run(_measured(bench, server, _recordings()))


def _recordings() -> Mapping[str, tuple[bytes, int]]:
    """Return uploads of 10 s by what is in them, with the status that each is answered with."""
    import numpy as np  # noqa: PLC0415 - of the extra `whisper`

    from chatassist.domain.audio import AudioKind  # noqa: PLC0415
    from tests.fixtures.recordings import noise  # noqa: PLC0415
    from tests.fixtures.speech import RATE, encoded, said  # noqa: PLC0415

    speech = np.resize(said(_SAID), SECONDS * RATE)
    return {
        "speech, mp3": (encoded(speech, AudioKind.MP3), 200),
        "speech, aac": (encoded(speech, AudioKind.AAC), 200),
        "noise, mp3": (encoded(noise(SECONDS, -30), AudioKind.MP3), 400),
        "speech, wav": (encoded(speech, AudioKind.WAV), 200),
    }


class Uploads:
    """Somebody's uploads, each of them another question."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._numbers = itertools.count()

    async def connection(self) -> Connection:
        """Return a connection of its own."""
        return await Connection.to(self._port)

    async def upload(self, connection: Connection, recording: bytes, status: int) -> None:
        """Send one and wait for its answer. Raises Failed for another status."""
        body = _part('name="prompt"', str(next(self._numbers)).encode())
        body += _part('name="audio"; filename="recording.mp3"', recording) + f"--{_BOUNDARY}--\r\n".encode()
        head = (
            f"POST {_PATH} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = await connection.exchange(head.encode() + body)
        if connection.status != status:
            raise Failed(f"an upload was answered {connection.status}: {answer[:300].decode(errors='replace')}")

    async def looks(self, times: int) -> list[float]:
        """Ask who he is, again and again, and return how many ms it took, in order of size."""
        request = f"GET /v1/user/info HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n\r\n".encode()
        connection, seen = await self.connection(), []
        for _ in range(times):
            began = time.perf_counter()
            await connection.exchange(request)
            seen.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(_PAUSE)
        connection.close()
        return sorted(seen)


async def _measured(bench: Bench, server: Process, recordings: Mapping[str, tuple[bytes, int]]) -> list[Figure]:
    token, _ = json.loads(bench.seats.read_text())[0]
    uploads = Uploads(server.port, token)
    rounds, times = (1, 10) if bench.quick else (5, 30)
    costs = rounds_of(tuple(recordings), ("CPU per s of audio",))
    looks = rounds_of(("50 uploads", "quiet"), ("p50", "p99"))
    for number in range(rounds):
        bench.tell(f"hearing, round {number + 1} of {rounds}")
        for name, (recording, status) in recordings.items():
            costs["CPU per s of audio"][name].append(await _cost(server, uploads, recording, status, times))
        for name, busy in (("quiet", False), ("50 uploads", True)):
            seen = await _looked(
                uploads, *recordings["speech, mp3"], times=40 * times if busy else 20 * times, busy=busy
            )
            looks["p50"][name].append(seen[len(seen) // 2])
            looks["p99"][name].append(seen[len(seen) * 99 // 100])
    figures = [bench.figure("hearing", 1, name, "ms", seen) for name, seen in costs.items()]
    return figures + [bench.figure("user/info", UPLOADS, name, "ms", seen) for name, seen in looks.items()]


async def _cost(server: Process, uploads: Uploads, recording: bytes, status: int, times: int) -> float:
    connection = await uploads.connection()
    await uploads.upload(connection, recording, status)
    before = server.cpu
    for _ in range(times):
        await uploads.upload(connection, recording, status)
    connection.close()
    return 1000 * (server.cpu - before) / times / SECONDS


async def _looked(uploads: Uploads, recording: bytes, status: int, *, times: int, busy: bool) -> list[float]:
    async def on_and_on() -> None:
        connection = await uploads.connection()
        while True:
            await uploads.upload(connection, recording, status)

    under_way = [asyncio.create_task(on_and_on()) for _ in range(UPLOADS if busy else 0)]
    await asyncio.sleep(0.5 if busy else 0)  # until all are
    seen = await uploads.looks(times)
    for each in under_way:
        each.cancel()
    for each in under_way:
        with suppress(asyncio.CancelledError):
            await each
    return seen


def _part(name: str, content: bytes) -> bytes:
    return f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + content + b"\r\n"
