"""`saveHistory:false`: of such turns nothing is found in any file, log line or output, whatever becomes of them."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.migrate import migrate
from tests.fixtures.databases import new_database
from tests.fixtures.logs import RUN
from tests.fixtures.mariadb import MariaDbServer
from tests.fixtures.service import (
    Api,
    Person,
    Serve,
    ServiceProcess,
    client_of,
    data_of,
    reason_of,
    settings_for,
    variables_of,
)
from tests.fixtures.streams import ask, delete, rate, regenerate, stop, streamed, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Call, fails, hangs, piece, says
from tests.integration.test_document import llm
from tests.integration.test_processes import MakeProcess, rows, vendor_variables
from tests.integration.test_unsaved import keep_nothing

MARKER = "unsaved-marker-5b1e-紫色的大象在跳舞"
ESCAPED = MARKER.encode("unicode_escape").replace(b"\\\\", b"\\")


async def everything_with_the_marker(api: Api, person: Person, vendor: LoopbackVendor) -> None:
    """Every way that words can take through the service."""
    thoughtful = {**piece(), "choices": [{"index": 0, "delta": {"reasoning_content": f"thought {MARKER}"}}]}

    async def thinks(call: Call) -> None:
        await call.event(thoughtful)
        await says(f"answer {MARKER}")(call)

    vendor.answers(
        thinks,
        f"streamed {MARKER}",
        hangs(f"stopped {MARKER}"),
        f"anew {MARKER}",
        says(f"half {MARKER}", finish=None, done=False),
        fails(500, {"error": {"message": f"you said {MARKER}"}}),
        f"whole {MARKER}",
        hangs(f"left behind {MARKER}"),
    )
    first = await person.says(f"question {MARKER}", clientMessageId="k-1")
    session = first["sessionId"]
    await streamed(person, f"question {MARKER}", sessionId=session, clientMessageId="k-2")
    async with streaming(person, f"to stop {MARKER}", sessionId=session) as stream:
        message_id = (await stream.start())["messageId"]
        await stream.until_text("stopped")
        await asyncio.sleep(0.2)  # the saver's time, several times over
        await stop(person, message_id)
        await stream.done()
    await regenerate(person, message_id, clientMessageId="k-3")
    await rate(person, message_id, "dislike", comment=f"comment {MARKER}")
    for _ in range(2):
        failed = await person.send(f"fails {MARKER}", sessionId=session, clientMessageId="k-4")
        assert failed.status_code == 500
    assert (await person.says(f"fails {MARKER}", sessionId=session, clientMessageId="k-4"))["status"] == "complete"
    assert reason_of(await person.send(f"other {MARKER}", clientMessageId="k-4")) == (400, "idempotency_mismatch")
    assert reason_of(await person.send(f"x {MARKER}", sessionId=MARKER)) == (404, "session_not_found")
    assert reason_of(await person.send(f"x {MARKER}", model=MARKER)) == (400, "model_unknown")
    assert reason_of(await ask(person, message_id, "feedback", "PUT", json={"rating": MARKER})) == (
        400,
        "invalid_request",
    )
    await delete(person, message_id)
    async with streaming(person, f"left {MARKER}", sessionId=session) as stream:
        await stream.until_text("left behind")  # and then the client goes
    assert data_of(await person.get("/v1/user/info"))["id"] == person.user["id"]
    assert any(MARKER in str(request.body) for request in vendor.requests), "the vendor was told"


def found_in(folder: Path) -> Iterator[str]:
    """Name the files that hold the marker, as UTF-8 or escaped."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        if MARKER.encode() in content or b"unsaved-marker" in content or ESCAPED in content:
            yield file.name


def quick_saver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatassist.domain.upkeep.SAVE_SECONDS", 0.02)
    monkeypatch.setattr("chatassist.domain.upkeep.LOOK_SECONDS", 0.02)


async def a_control_that_is_saved(database: URL, person: Person, folder: Path) -> None:
    """The search would find it: the same words in a saved session are there."""
    await keep_nothing(person, nothing=False)
    await person.says(f"saved on purpose {MARKER}")
    assert list(found_in(folder)), "a search that cannot find is no search"


async def test_nothing_is_left_in_sqlite_nor_logged(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_saver(monkeypatch)
    RUN.keep_private(MARKER)
    folder = Path(str(sqlite_url.database)).parent
    api = await serve(settings_for(sqlite_url, llm=llm(vendor)))
    person = await api.login()
    await keep_nothing(person)
    lines = len(RUN.lines)
    await everything_with_the_marker(api, person, vendor)
    assert {file.name for file in folder.iterdir()} >= {"store.db", "store.db-wal", "store.db-shm"}
    assert list(found_in(folder)) == []
    assert len(RUN.lines) > lines + 20
    assert not [line for line in RUN.lines if "unsaved-marker" in line]
    vendor.script = says("kept")
    await a_control_that_is_saved(sqlite_url, person, folder)


async def test_nothing_is_left_in_a_mysql_server_nor_logged(
    start_mariadb: Any, serve: Serve, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_saver(monkeypatch)
    RUN.keep_private(MARKER)
    server: MariaDbServer = start_mariadb("--log-bin=binlog", "--binlog-format=ROW", "--general-log=1")
    database = await new_database(server.url)
    await migrate(database)
    api = await serve(settings_for(database, llm=llm(vendor)))
    person = await api.login()
    await keep_nothing(person)
    await everything_with_the_marker(api, person, vendor)
    await rows(database, "FLUSH TABLES")
    assert list(found_in(server._data)) == []
    assert not [line for line in RUN.lines if "unsaved-marker" in line]
    vendor.script = says("kept")
    await a_control_that_is_saved(database, person, server._data)


async def test_nothing_is_left_by_a_process_of_its_own(
    sqlite_url: URL, process: MakeProcess, vendor: LoopbackVendor
) -> None:
    """With everything that it prints, and what its end leaves behind: a reply still runs when it is told to go."""
    folder = Path(str(sqlite_url.database)).parent
    variables: Mapping[str, str] = {
        **variables_of(settings_for(sqlite_url)),
        **vendor_variables(vendor),
        "CHATASSIST_HTTP__DRAIN_SECONDS": "0.2",
    }
    service: ServiceProcess = process(variables)
    async with client_of(await service.start()) as api:
        person = await api.login()
        await keep_nothing(person)
        await everything_with_the_marker(api, person, vendor)
    await service.end()
    assert "turn accepted" in service.output
    assert "unsaved-marker" not in service.output
    assert "Traceback" not in service.output
    assert list(found_in(folder)) == []
