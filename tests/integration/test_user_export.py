"""`GET /v1/user/export` over a real socket: a file of everything, of any size, broken off visibly if at all."""

import asyncio
import socket
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, insert

from chatassist.adapters.persistence.mapping import session_values, turn_values
from chatassist.adapters.persistence.sql import SqlStore
from chatassist.adapters.persistence.sql_exports import SqlExports
from chatassist.adapters.persistence.tables import MESSAGES, SESSIONS
from chatassist.container import open_services
from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.model import Session, User
from chatassist.domain.ports.exports import Page
from chatassist.domain.services.exports import AT_ONCE
from chatassist.domain.turns import Status
from chatassist.entrypoints.http.download import ExportDownload, ExportFormat
from tests.builders import a_session, a_turn, a_user
from tests.fixtures.service import Answer, Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import rate, regenerate
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails
from tests.integration.storing import opened
from tests.integration.test_document import llm

PATH = "/v1/user/export"
END = b"0\r\n\r\n"  # of a body in chunks


async def export(person: Person, **query: str) -> Answer:
    return await person.http.get(PATH, params=query, headers=person.bearer)


async def fill(url: URL, user_id: str, turns: int, chars: int = 500) -> Session:
    """Put a long session into the database, without a vendor."""
    session = a_session(a_user(id=user_id), title="long", spoken=True, messages=2 * turns, turns=turns)
    async with opened(url) as store, store._connections._engine.connect() as db:
        await db.execute(insert(SESSIONS), [session_values(session)])
        for first in range(1, turns + 1, 100):
            rows = [
                row
                for position in range(first, min(first + 100, turns + 1))
                for row in turn_values(
                    a_turn(
                        session, position, "问" * chars, status=Status.COMPLETE, content=f"{position}" + "答" * chars
                    )
                )
            ]
            await db.execute(insert(MESSAGES), rows)
        if url.drivername.startswith("sqlite"):
            await db.commit()
    return session


@pytest.fixture
async def person(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> Person:
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    someone: Person = await api.login("dev:anna", userInfo={"nickName": "安娜"})
    return someone


# --- What is in it --------------------------------------------------------------------------------------------------


async def test_everything_that_was_said_and_set_is_in_the_file(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("one", "anew", fails(500), "elsewhere")
    first = await person.says("# 问😀", clientMessageId="k-1")
    again = await regenerate(person, first["messageId"])
    await rate(person, again["messageId"], "like", comment="好")
    failed = await person.send("fails", sessionId=first["sessionId"])
    other = await person.says("another")
    await person.http.put("/v1/user/settings", json={"isDarkMode": True}, headers=person.bearer)

    answer = await export(person)

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="chatassist-export.json"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Content-Length" not in answer.headers
    document = answer.json()
    assert list(document) == ["exportedAt", "user", "usage", "logins", "sessions"]
    assert document["user"] == data_of(await person.get("/v1/user/info"))
    today = data_of(await person.get("/v1/user/usage"))
    assert [(day["day"], day["messages"], day["inputTokens"]) for day in document["usage"]] == [
        (today["day"], 4, today["inputTokens"])
    ]
    assert len(document["logins"]) == 1
    one, two = document["sessions"]
    assert (one["sessionId"], two["sessionId"]) == (first["sessionId"], other["sessionId"])
    assert one["title"] == "# 问😀"
    told = [
        (message["turn"], message["role"], message.get("version"), message["content"]) for message in one["messages"]
    ]
    assert told == [
        (1, "user", None, "# 问😀"),
        (1, "assistant", 1, "one"),
        (1, "assistant", 2, "anew"),
        (2, "user", None, "fails"),
        (2, "assistant", 1, ""),
    ]
    assert [message.get("shown") for message in one["messages"]] == [None, False, True, None, True]
    assert one["messages"][2]["feedback"] == {"rating": "like", "comment": "好"}
    assert one["messages"][-1]["messageId"] == failed.json()["turn"]["messageId"]
    assert one["messages"][-1]["reason"] == "llm_unavailable"
    assert all(message["aiGenerated"] is (message["role"] == "assistant") for message in one["messages"])


async def test_it_can_be_read_as_markdown(person: Person, vendor: LoopbackVendor) -> None:
    vendor.answers("# heading\n```js\nlet a\n```")
    await person.says("## 会话：fake")

    answer = await export(person, format="markdown")

    assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="chatassist-export.md"'
    text = answer.content.decode()
    assert text.startswith("# 个人数据导出\n")
    assert "```text\n## 会话：fake\n```\n" in text
    assert "````text\n# heading\n```js\nlet a\n```\n````\n" in text
    assert "AI 生成" in text
    assert text.endswith("\n导出完成。\n")


async def test_who_never_said_anything_gets_a_whole_file(quick_api: Api) -> None:
    person = await quick_api.login("dev:silent")
    document = (await export(person)).json()
    assert (document["usage"], document["sessions"]) == ([], [])
    assert (await export(person, format="markdown")).text.endswith("导出完成。\n")


async def test_what_was_deleted_or_never_saved_or_others_said_is_not_in_it(
    person: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(*["an answer"] * 4)
    kept = await person.says("kept words")
    gone = await person.says("deleted words", sessionId=kept["sessionId"], clientMessageId="k")
    await person.http.delete(f"/v1/chat/message/{gone['messageId']}", headers=person.bearer)
    await person.http.put("/v1/user/settings", json={"saveHistory": False}, headers=person.bearer)
    await person.says("unsaved words", sessionId=kept["sessionId"])
    other = await Api(person.http, str(person.http.base_url)).login("dev:bert")
    await other.says("words of bert")
    for form in ("json", "markdown"):
        text = (await export(person, format=form)).text
        assert "kept words" in text
        assert not [
            word for word in ("deleted", "unsaved", "bert") if f"{word} words" in text or word == "bert" in text
        ]


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["", "xml", "JSON", "json,markdown"])
async def test_another_format_is_400(quick_api: Api, form: str) -> None:
    answer = await export(await quick_api.login("dev:form"), format=form)
    assert reason_of(answer) == (400, "invalid_request")
    assert answer.json()["message"] == "请求参数错误：format"


async def test_neither_a_stranger_nor_a_blocked_user_gets_anything(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url))
    assert reason_of(await api.http.get(PATH)) == (401, "token_missing")
    person = await api.login("dev:mallory")
    async with open_services(settings_for(sqlite_url)) as elsewhere:
        await elsewhere.users.block(person.user["id"], blocked=True)
    assert reason_of(await export(person)) == (403, "user_blocked")


async def test_it_counts_as_a_read(sqlite_url: URL, serve: Serve) -> None:
    person = await (await serve(settings_for(sqlite_url, limits={"reads_per_minute": 1}))).login()
    assert (await export(person)).status_code == 200
    assert reason_of(await export(person)) == (429, "too_many_reads")


async def test_a_user_has_so_many_under_way_and_no_more(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url))
    person, other = await api.login("dev:anna"), await api.login("dev:bert")
    await fill(sqlite_url, person.user["id"], 5_000)  # more than any buffer on the way takes
    readers = [await begun(api, person) for _ in range(AT_ONCE)]
    refused = await export(person)
    assert reason_of(refused) == (429, "too_many_exports")
    assert 0 < int(refused.headers["Retry-After"]) <= 601
    assert (await export(other)).status_code == 200
    for _, writer in readers:
        writer.close()
    async with asyncio.timeout(10):
        while (again := await export(person)).status_code == 429:
            pass
    assert len(again.json()["sessions"][0]["messages"]) == 10_000


# --- What may happen on the way -------------------------------------------------------------------------------------


async def begun(api: Api, person: Person, *, buffer: int = 65_536) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for an export and read as far as its first bytes."""
    _, _, port = api.base_url.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=buffer)
    head = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {person.token}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    return reader, writer


async def soon(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came true")


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    read = b""
    try:
        while more := await asyncio.wait_for(reader.read(1 << 20), 10):
            read += more
            if read.endswith(END):
                break
    except ConnectionError:
        pass
    writer.close()
    return read


class CountedReads:
    """Counts the pages that were read, and fails from one on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.count = 0
        entries = SqlExports.entries

        async def counted(exports: SqlExports, session: Session, after: tuple[int, int], room: int) -> Page:
            self.count += 1
            if fail_at is not None and self.count >= fail_at:
                raise StoreUnavailable("pulled out")
            return await entries(exports, session, after, room)

        monkeypatch.setattr(SqlExports, "entries", counted)


async def test_a_database_that_breaks_midway_cuts_the_connection_and_is_logged(
    sqlite_url: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = await serve(settings_for(sqlite_url))
    person = await api.login()
    await fill(sqlite_url, person.user["id"], 1000)
    CountedReads(monkeypatch, fail_at=3)
    read = await rest(*await begun(api, person))
    assert len(read) > 100_000, "something came"
    assert not read.endswith(END), "and does not look whole"
    [record] = [record for record in caplog.records if record.message == "export broke"]
    assert record.__dict__["reason"] == "database_unavailable"


async def test_a_database_that_is_away_at_once_is_an_envelope(
    sqlite_url: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await serve(settings_for(sqlite_url))
    person = await api.login()

    async def away(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(SqlStore, "read", away)
    assert reason_of(await export(person)) == (500, "database_unavailable")


async def test_a_slow_reader_holds_a_page_and_no_connection_to_the_database(
    sqlite_url: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(sqlite_url)
    narrow = settings.database.model_copy(update={"pool_size": 1})
    api = await serve(settings.model_copy(update={"database": narrow}))
    person = await api.login()
    await fill(sqlite_url, person.user["id"], 5_000)
    reads = CountedReads(monkeypatch)
    reader, writer = await begun(api, person)
    seen = -1
    while seen != reads.count:  # until it waits for its reader
        seen = reads.count
        await asyncio.sleep(0.2)
    assert 0 < seen < 40, "of 58 pages"
    assert (await person.says("hello"))["status"] == "complete"
    read = await rest(reader, writer)
    assert read.endswith(END)
    assert reads.count > 50


async def test_when_the_client_goes_the_reading_stops(
    sqlite_url: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = await serve(settings_for(sqlite_url))
    person = await api.login()
    await fill(sqlite_url, person.user["id"], 5_000)
    reads = CountedReads(monkeypatch)
    _, writer = await begun(api, person)
    writer.transport.abort()
    await soon(lambda: "export was not wanted any more" in caplog.messages)
    assert reads.count < 40
    assert "export broke" not in caplog.messages


async def test_who_takes_too_long_is_cut_off(
    sqlite_url: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chatassist.entrypoints.http.download.LONGEST", timedelta(seconds=0.3))
    api = await serve(settings_for(sqlite_url))
    person = await api.login()
    await fill(sqlite_url, person.user["id"], 5_000)
    reader, writer = await begun(api, person)
    await soon(lambda: "export broke" in caplog.messages)
    assert not (await rest(reader, writer)).endswith(END)


# --- What it costs --------------------------------------------------------------------------------------------------


async def peak_of(url: URL, user: User) -> tuple[int, int]:
    """Return the bytes of an export, and the peak of memory that making it took."""
    size = 0

    async def send(message: Any) -> None:
        nonlocal size
        size += len(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    async with open_services(settings_for(url)) as services:
        warm = await ExportDownload.opened(services.exports.pages(a_user()), ExportFormat.JSON)
        await warm({}, receive, send)
        size = 0
        tracemalloc.start()
        try:
            made = await ExportDownload.opened(services.exports.pages(user), ExportFormat.JSON)
            await made({}, receive, send)
            return size, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


async def test_it_takes_no_more_memory_for_ten_times_as_much(sqlite_url: URL) -> None:
    small, large = a_user(), a_user()
    for user, messages in ((small, 2_000), (large, 20_000)):
        await fill(sqlite_url, user.id, messages // 2)
    (little, low), (much, high) = await peak_of(sqlite_url, small), await peak_of(sqlite_url, large)
    assert much > 9 * little > 9 * 3_000_000
    assert high < 1.2 * low
    assert high < 4_000_000


async def test_long_texts_take_no_more_memory_than_many_short_ones(sqlite_url: URL) -> None:
    user = a_user()
    await fill(sqlite_url, user.id, 200, chars=32_000)
    size, peak = await peak_of(sqlite_url, user)
    assert size > 38_000_000
    assert peak < 4_000_000
