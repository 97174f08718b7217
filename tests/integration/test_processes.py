"""The service as a process of its own: started by an operator, killed, and started again; its database killed too."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL, text

from chatassist.adapters.persistence.engine import open_engine
from chatassist.adapters.persistence.migrate import migrate
from tests.fixtures.databases import new_database
from tests.fixtures.mariadb import PASSWORD, USER, MariaDbServer
from tests.fixtures.service import (
    Person,
    Serve,
    ServiceProcess,
    client_of,
    data_of,
    reason_of,
    settings_for,
    variables_of,
)
from tests.fixtures.streams import resuming, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import hangs
from tests.integration.test_document import llm

MakeProcess = Callable[[Mapping[str, str]], ServiceProcess]


def vendor_variables(vendor: LoopbackVendor) -> dict[str, str]:
    return {
        "CHATASSIST_LLM__BASE_URL": vendor.base_url,
        "CHATASSIST_LLM__API_KEY": "sk-loopback-key",
        "CHATASSIST_LLM__MODEL": "loopback-1",
        "CHATASSIST_LLM__MAX_CALLS": "1",
    }


async def rows(database: URL, statement: str) -> list[tuple[Any, ...]]:
    engine = open_engine(database, pool_size=1)
    try:
        async with engine.connect() as db:
            result = await db.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        await engine.dispose()


async def test_a_fresh_machine_needs_nothing(process: MakeProcess) -> None:
    """No variable at all: SQLite is migrated, a token secret is made, the two lines to try are printed."""
    service = process({})
    async with client_of(await service.start()) as api:
        person = await api.login("dev:first-visit")
        assert "CHATASSIST_LLM__VENDOR" in (await person.says("你好"))["reply"]["content"]
    assert await service.end() in (0, -signal.SIGTERM)
    assert "/v1/auth/wechat-login" in service.output
    assert "/v1/chat/message" in service.output
    assert service.output.count("speech to text is not configured") == 1
    async with client_of(await service.start()) as api:
        again = Person(api.http, person.token, person.user)
        assert (await again.get("/v1/user/info")).status_code == 200, "secret and login outlive a restart"


async def test_kill_9_during_a_vendor_call_loses_and_doubles_nothing(
    any_database: URL, process: MakeProcess, vendor: LoopbackVendor
) -> None:
    vendor.answers(hangs("part of an ans"))
    service = process({**variables_of(settings_for(any_database)), **vendor_variables(vendor)})
    async with client_of(await service.start()) as api:
        person = await api.login()
        sending = asyncio.create_task(person.send("the question", clientMessageId="key-1"))
        await vendor.until(lambda: vendor.busy == 1)
        await service.end(signal.SIGKILL)
        with pytest.raises(httpx2.TransportError):
            await sending
    [(reply, dead)] = await rows(any_database, "SELECT id, instance_id FROM messages WHERE version = 1")
    believed = "UPDATE instances SET until = '{} 00:00:00.000000' WHERE id = '{}'"
    await rows(any_database, believed.format("2126-01-01", dead))  # however long the next start takes
    async with client_of(await service.start()) as api:
        person = Person(api.http, person.token, person.user)
        assert (await person.look(reply))["status"] == "running", "the dead process is believed until its time is over"
        await rows(any_database, believed.format("2026-01-01", dead))
        shown = await person.look(reply)
        assert (shown["status"], shown["reason"]) == ("failed", "reply_interrupted")
        assert shown["content"] in ("", "part of an ans"), "as far as it was saved"
        vendor.answers("the whole answer")
        sent = await person.says("the question", clientMessageId="key-1")
        assert (sent["messageId"], sent["reply"]["content"]) == (reply, "the whole answer")
        assert sent["replayed"] is False, "the key begins it again"
        assert (await person.says("the question", clientMessageId="key-1"))["replayed"]
    stored = await rows(any_database, "SELECT content, status, reason FROM messages ORDER BY version")
    assert stored == [("the question", None, None), ("the whole answer", "complete", None)]
    assert len(vendor.requests) == 2


async def test_after_kill_9_a_stream_is_resumed_and_the_turn_begun_again_on_another_instance(
    any_database: URL, process: MakeProcess, serve: Serve, vendor: LoopbackVendor
) -> None:
    vendor.answers(hangs("part of an ans"), "the whole answer")
    service = process({**variables_of(settings_for(any_database)), **vendor_variables(vendor)})
    survivor = await serve(settings_for(any_database, llm=llm(vendor)))
    async with client_of(await service.start()) as api:
        person = await api.login()
        elsewhere = Person(survivor.http, person.token, person.user)
        async with streaming(person, "the question", clientMessageId="key-1") as stream:
            message_id = (await stream.start())["messageId"]
            await stream.until_text("part of an ans")
            await service.end(signal.SIGKILL)
            with pytest.raises(httpx2.TransportError):
                await stream.last()
    [(dead,)] = await rows(any_database, "SELECT instance_id FROM messages WHERE version = 1")
    async with resuming(elsewhere, message_id, stream.seq, stream.content) as resumed:
        await resumed.start()
        await rows(any_database, f"UPDATE instances SET until = '2026-01-01 00:00:00.000000' WHERE id = '{dead}'")
        error = await resumed.error()
    assert (error["reason"], error["status"], error["retryable"]) == ("reply_interrupted", "failed", True)
    async with streaming(elsewhere, "the question", clientMessageId="key-1") as again:
        assert (await again.start())["messageId"] == message_id
        await again.done()
    assert again.content == "the whole answer"
    async with resuming(elsewhere, message_id, stream.seq, stream.content) as later:
        await later.done()
    assert later.content == "the whole answer"


async def test_the_users_own_url_with_an_account(
    start_mariadb: Callable[[], MariaDbServer], process: MakeProcess, vendor: LoopbackVendor
) -> None:
    """`jdbc:mysql://localhost:<port>` as it stands in the document, plus user and password; another vendor by three."""
    server = start_mariadb()
    url = f"jdbc:mysql://127.0.0.1:{server.port}"
    account = {"CHATASSIST_DATABASE__USER": USER, "CHATASSIST_DATABASE__PASSWORD": PASSWORD}
    variables = {"CHATASSIST_DATABASE__URL": url, **account, **vendor_variables(vendor)}
    behind = process(variables)
    with pytest.raises(AssertionError, match="chatassist migrate"):
        await behind.start()
    assert await behind.end() == 1
    assert PASSWORD not in behind.output
    migration = process(variables)
    assert await migration.run("migrate") == 0, migration.output
    service = process(variables)
    async with client_of(await service.start()) as api:
        person = await api.login()
        session = (await person.says("one"))["sessionId"]
        for text_ in ("two", "three"):
            await person.says(text_, sessionId=session)
        assert [message["content"] for message in vendor.requests[-1].messages[::2]] == ["one", "two", "three"]
        assert (await person.logout()).status_code == 200
        assert reason_of(await person.get("/v1/user/info")) == (401, "login_ended")


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"CHATASSIST_ENV": "production"}, "CHATASSIST_WECHAT__APPID"),
        ({"CHATASSIST_TOKEN__SECRET": "hidden-and-short"}, "CHATASSIST_TOKEN__SECRET"),
        ({"CHATASSIST_TOKEN__SECRET": "hidden" * 10}, "CHATASSIST_TOKEN__SECRET"),
        ({"CHATASSIST_DATABASE__URL": "postgres://u:hidden@localhost/x"}, "database URL"),
        ({"CHATASSIST_DATABASE__URL": "mysql://u:hidden@127.0.0.1:1/x"}, "database"),
        ({"CHATASSIST_HTTP__PORT": "hidden"}, "CHATASSIST_HTTP__PORT"),
        ({"CHATASSIST_HTTP__HOST": "192.0.2.1"}, "CHATASSIST_WECHAT__APPID"),
        ({"CHATASSIST_LLM__VENDOR": "sk-hidden", "CHATASSIST_LLM__MODEL": "hidden"}, "CHATASSIST_LLM__VENDOR will not"),
        ({"CHATASSIST_LLM__MODEL": "hidden", "CHATASSIST_LLM__VENDOR": "kimi"}, "CHATASSIST_LLM__API_KEY is missing"),
        (
            {"CHATASSIST_LLM__VENDORS_FILE": "hidden.toml"},
            "CHATASSIST_LLM__VENDORS_FILE will not do: it cannot be read",
        ),
        ({"CHATASSIST_LLM__OVERRIDES": '{"hid": "hidden"}'}, "CHATASSIST_LLM__OVERRIDES: .*`hid` is no key"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_start_that_makes_no_sense_is_refused_in_a_sentence(
    process: MakeProcess, variables: dict[str, str], told: str
) -> None:
    service = process(variables)
    with pytest.raises(AssertionError, match=told):
        await service.start()
    assert await service.end() == 1
    assert "hidden" not in service.output, "never the value"
    assert "Traceback" not in service.output


async def test_the_database_killed_and_restarted_under_load(
    start_mariadb: Callable[[], MariaDbServer], serve: Serve, vendor: LoopbackVendor
) -> None:
    """While it is away every request is a 500 envelope in bounded time; once it is back, requests succeed at once."""
    server = start_mariadb()
    database = await new_database(server.url)
    await migrate(database)
    api = await serve(settings_for(database, llm=llm(vendor)))
    person = await api.login()
    load = Load(person)
    async with load.running():
        await load.until(lambda: len(load.answers) >= 20)
        await asyncio.to_thread(server.kill)
        await load.until(lambda: any(answer.status_code == 500 for answer in load.answers))
        for _ in range(3):
            refused = await person.get("/v1/user/info")
            assert reason_of(refused) == (500, "database_unavailable")
            assert refused.headers["Retry-After"]
        assert (await api.http.get("/readyz")).status_code == 503
        assert (await api.http.get("/healthz")).status_code == 200
        await asyncio.to_thread(server.start)
        assert (await person.get("/v1/user/info")).status_code == 200, "at once"
        assert data_of(await person.send("back again"))["status"] == "complete"
    refusals = [answer for answer in load.answers if answer.status_code != 200]
    assert {reason_of(answer)[1] for answer in refusals} <= {"database_unavailable", "reply_not_stored"}
    doubled = "SELECT count(*) FROM messages GROUP BY session_id, position, version HAVING count(*) > 1"
    assert await rows(database, doubled) == []
    acknowledged = {data_of(answer)["messageId"] for answer in load.answers if answer.status_code == 200}
    complete = {row[0] for row in await rows(database, "SELECT id FROM messages WHERE status = 'complete'")}
    assert acknowledged <= complete, "what was acknowledged is there"


class Load:
    """Eight clients who send again and again, whatever the answer."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._more = asyncio.Event()
        self.answers: list[httpx2.Response] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clients = [asyncio.create_task(self._send()) for _ in range(8)]
        yield
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._more.clear()
                await self._more.wait()

    async def _send(self) -> None:
        while True:
            self.answers.append(await self._person.send("hello"))
            self._more.set()


async def test_sigterm_ends_the_process_in_time(process: MakeProcess, vendor: LoopbackVendor) -> None:
    vendor.script = hangs("so far")
    service = process({**vendor_variables(vendor), "CHATASSIST_HTTP__DRAIN_SECONDS": "0.5"})
    async with client_of(await service.start()) as api:
        person = await api.login()
        sending = asyncio.create_task(person.send("hello"))
        await vendor.until(lambda: vendor.busy == 1)
        async with asyncio.timeout(5.5):
            await service.end(signal.SIGTERM)
        assert reason_of(await sending) == (500, "reply_interrupted")


async def test_sigterm_ends_the_process_in_time_even_while_the_database_is_frozen(
    start_mariadb: Callable[[], MariaDbServer], process: MakeProcess, vendor: LoopbackVendor
) -> None:
    server = start_mariadb()
    database = await new_database(server.url)
    await migrate(database)
    vendor.script = hangs("so far")
    drain = {"CHATASSIST_HTTP__DRAIN_SECONDS": "0.5"}
    service = process({**variables_of(settings_for(database)), **vendor_variables(vendor), **drain})
    async with client_of(await service.start()) as api:
        person = await api.login()
        sending = asyncio.create_task(person.send("hello"))
        await vendor.until(lambda: vendor.busy == 1)
        server.pause()
        try:
            async with asyncio.timeout(5.5):
                await service.end(signal.SIGTERM)
        finally:
            server.resume()
        assert reason_of(await sending)[0] == 500
