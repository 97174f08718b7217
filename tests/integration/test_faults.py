"""Turns survive: two instances, one database, one Redis, and everything that can go wrong between them.

The storm at the end is the judge: hundreds of turns by clients who behave as the contract says, while processes are
killed, frozen and ended and lines are cut; then the database is asked what is true.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.migrate import migrate
from tests.fixtures.aftermath import Aftermath, nothing_runs, rows
from tests.fixtures.chaos import DRAIN_SECONDS, Chaos, Instance
from tests.fixtures.databases import new_database
from tests.fixtures.logs import RUN
from tests.fixtures.mariadb import MariaDbServer
from tests.fixtures.proxy import CommitCutter, Proxy
from tests.fixtures.redis import RedisServer
from tests.fixtures.reply_copy import Event, ReplyCopy
from tests.fixtures.scribe import Scribe, chance_of
from tests.fixtures.service import (
    NO_TLS,
    ServiceProcess,
    client_of,
    data_of,
    reason_of,
    settings_for,
    variables_of,
)
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, hangs, piece, says
from tests.fixtures.virtual_clients import PATIENCE, VirtualClient
from tests.integration.test_processes import vendor_variables

MakeProcess = Callable[..., ServiceProcess]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Two instances on one database and perhaps one Redis, each behind a proxy. `database` leads past it."""

    instances: list[Instance]
    http: httpx2.AsyncClient
    database: URL
    mariadb: MariaDbServer
    mysql: CommitCutter
    vendor: LoopbackVendor
    redis: tuple[RedisServer, Proxy] | None

    @property
    def printed(self) -> str:
        return "".join(instance.process.output for instance in self.instances)

    def defects(self) -> list[str]:
        """Return the lines that tell of a defect of ours."""
        return [line for line in self.printed.splitlines() if "[error" in line or "Traceback" in line]

    def outputs_are_clean(self) -> None:
        """No defect was met, and nothing private was printed."""
        printed = self.printed
        assert self.defects() == []
        assert [text for text in RUN.private if text in printed] == []


@pytest.fixture
def more_variables() -> dict[str, str]:
    return {}


@pytest.fixture(params=[True, False], ids=["with redis", "without redis"])
async def fleet(
    request: pytest.FixtureRequest,
    start_mariadb: Callable[[], MariaDbServer],
    process: MakeProcess,
    vendor: LoopbackVendor,
    more_variables: dict[str, str],
) -> AsyncIterator[Fleet]:
    server = start_mariadb()
    redis_server = request.getfixturevalue("redis_server") if request.param else None
    database = await new_database(server.url)
    await migrate(database)
    async with AsyncExitStack() as stack:
        mysql = await stack.enter_async_context(CommitCutter(server.port).open())
        variables = {
            **variables_of(settings_for(database.set(port=mysql.port))),
            **vendor_variables(vendor),
            "CHATASSIST_HTTP__DRAIN_SECONDS": str(DRAIN_SECONDS),
            "CHATASSIST_HTTP__REPLY_WAIT": "3",
            **more_variables,
        }
        redis = None
        if redis_server:
            proxy = await stack.enter_async_context(Proxy(redis_server.port).open())
            variables["CHATASSIST_REDIS__URL"] = f"redis://127.0.0.1:{proxy.port}/0"
            redis = redis_server, proxy
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=50)
        http = await stack.enter_async_context(
            httpx2.AsyncClient(timeout=PATIENCE, limits=limits, trust_env=False, verify=NO_TLS)
        )
        instances = [Instance(process(variables, measured=False)) for _ in range(2)]
        await asyncio.gather(*(instance.start() for instance in instances))
        yield Fleet(instances, http, database, server, mysql, vendor, redis)


WITH_REDIS = pytest.mark.parametrize("fleet", [True], indirect=True, ids=["with redis"])
WITHOUT_REDIS = pytest.mark.parametrize("fleet", [False], indirect=True, ids=["without redis"])
LONG = httpx2.Timeout(60.0)
IMPATIENT = {
    "CHATASSIST_LLM__IDLE_TIMEOUT": "2",
    "CHATASSIST_LLM__DEADLINE": "20",
    "CHATASSIST_LLM__MAX_CALLS": "1",  # so that calls can be counted by attempts
}


class Phone:
    """Somebody's phone, with all the patience in the world, which speaks to whichever instance it is told to."""

    def __init__(self, http: httpx2.AsyncClient, token: str) -> None:
        self._http = http
        self._bearer = {"Authorization": f"Bearer {token}"}

    def asks(self, where: Instance, key: str, copy: ReplyCopy) -> asyncio.Task[list[Event]]:
        """Send a question and follow the reply; return what comes."""
        body = {"clientMessageId": key, "content": f"the question of {key}"}
        return asyncio.create_task(self._reads(copy, "POST", f"{where.base_url}/v1/chat/message/stream", json=body))

    def follows(self, where: Instance, copy: ReplyCopy) -> asyncio.Task[list[Event]]:
        """Go on with a reply."""
        path = f"/v1/chat/message/{copy.start['messageId']}/stream?after={copy.after}"
        return asyncio.create_task(self._reads(copy, "GET", where.base_url + path))

    async def sends(self, where: Instance, key: str) -> httpx2.Response:
        """Send a question and wait for the reply."""
        body = {"clientMessageId": key, "content": f"the question of {key}"}
        return await self._asked("POST", f"{where.base_url}/v1/chat/message", json=body)

    async def stops(self, where: Instance, copy: ReplyCopy) -> Any:
        path = f"/v1/chat/message/{copy.start['messageId']}/stop"
        return data_of(await self._asked("POST", where.base_url + path))

    async def waits(self, where: Instance, copy: ReplyCopy) -> Any:
        """Wait for the end of a reply, as long as it takes to find out that its owner is gone."""
        path = f"/v1/chat/message/{copy.start['messageId']}?waitSeconds=25"
        return data_of(await self._asked("GET", where.base_url + path))

    async def _asked(self, method: str, url: str, **more: Any) -> httpx2.Response:
        return await self._http.request(method, url, headers=self._bearer, timeout=LONG, **more)

    async def _reads(self, copy: ReplyCopy, method: str, url: str, **more: Any) -> list[Event]:
        async with self._http.stream(method, url, headers=self._bearer, timeout=LONG, **more) as response:
            assert response.status_code == 200, await response.aread()
            return [event async for event in copy.read(response)]


@pytest.fixture
async def phone(fleet: Fleet) -> Phone:
    return Phone(fleet.http, await _token(fleet, 0))


async def _token(fleet: Fleet, number: int) -> str:
    base_url = fleet.instances[number % 2].base_url
    async with client_of(base_url) as api:
        return (await api.login(f"dev:fault-{number}")).token


def chatters() -> Behaviour:
    """Say something every now and then, without end."""

    async def behave(call: Call) -> None:
        while True:
            await call.event(piece("and 🙂 "))
            await asyncio.sleep(0.2)

    return behave


async def stored(fleet: Fleet, copy: ReplyCopy) -> tuple[Any, ...]:
    """Return status, reason, text and attempt of a reply as the database holds them."""
    columns = "status, reason, content, attempt"
    [row] = await rows(fleet.database, f"SELECT {columns} FROM messages WHERE id = '{copy.start['messageId']}'")
    return row


async def saved(fleet: Fleet, copy: ReplyCopy) -> None:
    """Return when the text so far is saved, which takes 3 s at most, and the odd one on a loaded machine."""
    async with asyncio.timeout(5):
        while (await stored(fleet, copy))[2] != copy.text:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


async def disbelieve(fleet: Fleet, copy: ReplyCopy) -> None:
    """Let the lease of whoever produces a reply be over, without waiting for it: nobody renews it any more."""
    owner = f"SELECT instance_id FROM messages WHERE id = '{copy.start['messageId']}'"
    await rows(fleet.database, f"UPDATE instances SET until = '2026-01-01' WHERE id = ({owner})")


async def test_killed_in_the_middle_of_a_reply_it_is_interrupted_with_the_text_saved_and_the_key_restarts_it(
    fleet: Fleet, phone: Phone
) -> None:
    here, there = fleet.instances
    more = asyncio.Event()
    fleet.vendor.answers(says("kept ", more, "lost", asyncio.Event()), "another answer")
    reading = phone.asks(here, "key", copy := ReplyCopy())
    await copy.until(lambda copy: copy.text == "kept ")
    await saved(fleet, copy)
    more.set()
    await copy.until(lambda copy: copy.text == "kept lost")
    await here.kill()
    with pytest.raises(httpx2.TransportError):
        await reading
    await disbelieve(fleet, copy)
    _, replaced, ended = await phone.follows(there, copy)
    assert (replaced.kind, replaced.seq, replaced.data) == (
        "replace",
        999_999,
        {"content": "kept ", "reason": "resync"},
    )
    assert (ended.kind, ended.seq, ended.data["status"]) == ("error", 1_000_000, "failed")
    assert ended.data["reason"] == "reply_interrupted"
    _, restarted, *_, done = await phone.asks(there, "key", again := ReplyCopy())
    assert (restarted.kind, restarted.seq, restarted.data) == (
        "replace",
        1_000_001,
        {"content": "", "reason": "restarted"},
    )
    assert (done.kind, again.text) == ("done", "another answer")
    assert again.start == {**copy.start, "replayed": False}
    assert await stored(fleet, copy) == ("complete", None, "another answer", 1)
    assert len(fleet.vendor.requests) == 2


@WITH_REDIS
async def test_an_owner_that_slept_longer_than_its_lease_changes_nothing_and_tells_its_followers_the_truth(
    fleet: Fleet, phone: Phone
) -> None:
    here, there = fleet.instances
    awake = asyncio.Event()
    slow = says("half ", awake, "and half")
    fleet.vendor.answers(slow, slow, slow)
    copies = [ReplyCopy() for _ in range(3)]
    readings = [phone.asks(here, f"key-{number}", copy) for number, copy in enumerate(copies)]
    restarted, stopped, orphaned = copies
    for copy in copies:
        await copy.until(lambda copy: copy.text == "half ")
        await saved(fleet, copy)
    here.freeze()
    assert (await phone.stops(there, stopped))["status"] == "stopped", "ended for its owner"
    shown = await phone.waits(there, restarted)
    assert (shown["status"], shown["reason"], shown["content"]) == ("failed", "reply_interrupted", "half ")
    fleet.vendor.answers("by another")
    assert data_of(await phone.sends(there, "key-0"))["reply"]["content"] == "by another"
    awake.set()
    here.thaw()
    ends = [events[-1] for events in await asyncio.wait_for(asyncio.gather(*readings), 20)]
    assert [(end.kind, end.data["status"]) for end in ends] == [
        ("error", "failed"),
        ("done", "stopped"),
        ("error", "failed"),
    ]
    assert (stopped.text, orphaned.text) == ("half ", "half "), "what is stored, not what was said too late"
    await fleet.vendor.until(lambda: fleet.vendor.busy == 0)
    assert await stored(fleet, restarted) == ("complete", None, "by another", 1)
    assert await stored(fleet, stopped) == ("stopped", None, "half ", 0)
    assert await stored(fleet, orphaned) == ("failed", "reply_interrupted", "half ", 0)
    told = data_of(await phone.sends(here, "key-0"))
    assert (told["reply"]["content"], told["replayed"]) == ("by another", True)


@WITHOUT_REDIS
async def test_an_end_that_meets_no_database_is_stored_and_told_when_that_comes_back(
    fleet: Fleet, phone: Phone
) -> None:
    go_on = asyncio.Event()
    fleet.vendor.answers(says("the whole ", go_on, "answer"))
    reading = phone.asks(fleet.instances[0], "key", copy := ReplyCopy())
    await copy.until(lambda copy: copy.text == "the whole ")
    await asyncio.to_thread(fleet.mariadb.kill)
    go_on.set()
    await copy.until(lambda copy: copy.text == "the whole answer")
    await fleet.vendor.until(lambda: fleet.vendor.busy == 0)
    assert not reading.done(), "the end is told only when it is stored"
    await asyncio.to_thread(fleet.mariadb.start)
    assert (await asyncio.wait_for(reading, 10))[-1].kind == "done"
    assert await stored(fleet, copy) == ("complete", None, "the whole answer", 0)


@WITH_REDIS
async def test_without_redis_turns_go_on_and_are_followed_by_the_database_until_it_is_back(
    fleet: Fleet, phone: Phone
) -> None:
    assert fleet.redis
    here, there = fleet.instances
    redis, _ = fleet.redis
    go_on = asyncio.Event()
    fleet.vendor.answers(says("live ", go_on, "and well"), "meanwhile")
    producing = phone.asks(here, "key", copy := ReplyCopy())
    await copy.until(lambda copy: copy.text == "live ")
    far = ReplyCopy()
    far.start = copy.start
    following = phone.follows(there, far)
    await far.until(lambda copy: copy.text == "live ")
    await asyncio.to_thread(redis.stop)
    assert data_of(await phone.sends(there, "key-2"))["reply"]["content"] == "meanwhile", "new turns go on"
    go_on.set()
    assert (await producing)[-1].kind == "done"
    assert (await asyncio.wait_for(following, 10))[-1].kind == "done"
    assert far.text == "live and well"
    await asyncio.to_thread(redis.start)
    async with asyncio.timeout(10):
        while not await _is_seen_to_grow_elsewhere(fleet, phone):
            pass


async def _is_seen_to_grow_elsewhere(fleet: Fleet, phone: Phone) -> bool:
    """Tell whether a reply's text reaches the other instance before its end."""
    here, there = fleet.instances
    go_on = asyncio.Event()
    fleet.vendor.answers(says("grows ", go_on, "up"))
    producing = phone.asks(here, f"grown-{len(fleet.vendor.requests)}", copy := ReplyCopy())
    await copy.until(lambda copy: copy.text == "grows ")
    far = ReplyCopy()
    far.start = copy.start
    following = phone.follows(there, far)
    with contextlib.suppress(TimeoutError):  # what began while Redis was away is seen later, or at its end
        await far.until(lambda copy: copy.told["delta"] > 0, within=1)
    grew = far.told["delta"] > 0
    go_on.set()
    await producing
    await following
    assert far.text == "grows up"
    return grew


async def test_sigterm_with_fifty_open_streams_ends_each_with_one_event_and_in_time(fleet: Fleet, phone: Phone) -> None:
    """Forty of its own replies, and ten of the other instance's: those go on, only their streams break."""
    here, there = fleet.instances
    fleet.vendor.script = chatters()
    own, others, far = ([ReplyCopy() for _ in range(count)] for count in (40, 10, 10))
    readings = [phone.asks(here, f"own-{number}", copy) for number, copy in enumerate(own)]
    beside = [phone.asks(there, f"other-{number}", copy) for number, copy in enumerate(others)]
    for copy in (*own, *others):
        await copy.until(lambda copy: copy.text != "", within=20)
    for copy, original in zip(far, others, strict=True):
        copy.start = original.start
        readings.append(phone.follows(here, copy))
    for copy in far:
        await copy.until(lambda copy: "replayed" in copy.start and copy.start["replayed"])
    await here.terminate()
    await asyncio.wait_for(asyncio.gather(*readings), 5)
    ends = [copy.end.data for copy in own if copy.end]
    assert {(end["status"], end["reason"]) for end in ends} == {("failed", "reply_interrupted")}
    broken = [copy.end.data for copy in far if copy.end]
    assert {(end["status"], end["reason"]) for end in broken} == {("running", "shutting_down")}
    assert (len(ends), len(broken)) == (40, 10)
    for copy in own:
        assert await stored(fleet, copy) == ("failed", "reply_interrupted", copy.text, 0)
    for copy in others:
        await phone.stops(there, copy)
    await asyncio.gather(*beside)
    fleet.outputs_are_clean()


async def test_a_send_repeated_while_its_instance_drains_attaches_on_both(fleet: Fleet, phone: Phone) -> None:
    here, there = fleet.instances
    go_on = asyncio.Event()
    fleet.vendor.answers(says("the one ", go_on, "answer"))
    first = phone.asks(here, "key", copy := ReplyCopy())
    await copy.until(lambda copy: copy.text == "the one ")
    ending = asyncio.create_task(here.terminate())
    async with asyncio.timeout(5):
        while (await fleet.http.get(f"{here.base_url}/readyz")).status_code == 200:
            pass
    refused = await phone.sends(here, "other")
    assert reason_of(refused) == (500, "shutting_down")
    assert refused.headers["Retry-After"]
    again = [asyncio.create_task(phone.sends(where, "key")) for where in (here, there)]
    go_on.set()
    assert (await first)[-1].kind == "done"
    for sending in again:
        told = data_of(await sending)
        assert (told["messageId"], told["replayed"]) == (copy.start["messageId"], True)
        assert told["reply"]["content"] == "the one answer"
    await ending
    assert len(fleet.vendor.requests) == 1


async def test_a_send_repeated_after_its_instance_was_killed_is_the_same_turn(fleet: Fleet, phone: Phone) -> None:
    here, there = fleet.instances
    fleet.vendor.answers(hangs("half"), "the one answer")
    first = phone.asks(here, "key", copy := ReplyCopy())
    await copy.until(lambda copy: copy.text == "half")
    sending = [asyncio.create_task(phone.sends(there, "key")) for _ in range(5)]
    await here.kill()
    with pytest.raises(httpx2.TransportError):
        await first
    attached = [data_of(await each) for each in sending]
    assert {(told["messageId"], told["status"]) for told in attached} == {(copy.start["messageId"], "running")}
    await disbelieve(fleet, copy)
    answers = [data_of(answer) for answer in await asyncio.gather(*(phone.sends(there, "key") for _ in range(5)))]
    assert {told["messageId"] for told in answers} == {copy.start["messageId"]}
    assert {told["reply"]["content"] for told in answers} == {"the one answer"}
    assert sum(not told["replayed"] for told in answers) == 1
    assert len(fleet.vendor.requests) == 2
    assert await rows(fleet.database, "SELECT count(*) FROM messages") == [(2,)]


# --- The storm ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def told(seed: int, fleet: Fleet) -> AsyncIterator[None]:
    """Say with which seed it failed, and what defects the service met."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"CHATASSIST_TEST_SEED={seed} repeats this storm")
        error.add_note("\n".join(fleet.defects()[:5]))
        raise


@pytest.mark.timeout(240)
@pytest.mark.parametrize("more_variables", [IMPATIENT], ids=["hasty"])
async def test_a_storm_loses_nothing_doubles_nothing_and_garbles_nothing(fleet: Fleet) -> None:
    seed = int(os.environ.get("CHATASSIST_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    scribe = Scribe(seed)
    fleet.vendor.script = scribe
    many = fleet.redis is not None
    faults = ["kill", "freeze", "terminate", "cut_everything", "kill_database"]
    if many:
        faults += ["kill", "nap", "lose_redis", "freeze_redis"]
    chaos = Chaos(fleet.instances, (fleet.mariadb, fleet.mysql), fleet.redis, chance_of(seed))
    async with told(seed, fleet):
        clients = await _clients(fleet, seed, count=20)
        counter = iter(range(100_000))
        enough = 500 if many else 120

        async with asyncio.TaskGroup() as group:
            raging = group.create_task(chaos.rage(*faults))

            def wanted() -> int | None:
                number = next(counter)
                return None if number >= enough and raging.done() else number

            for client in clients:
                group.create_task(client.live(wanted))
        scribe.steady = True
        await nothing_runs(fleet.database)
        wishes = [wish for client in clients for wish in client.wishes]
        (await Aftermath.of(fleet.database, wishes, scribe)).check()
        fleet.outputs_are_clean()
    counted = sum((client.counted for client in clients), Counter[str]())
    logging.getLogger(__name__).info("seed %d: %d wishes, %s, %s", seed, len(wishes), chaos.done, counted)


async def _clients(fleet: Fleet, seed: int, count: int) -> list[VirtualClient]:
    """Log in everybody, before the storm."""
    clients = []
    for number in range(count):
        token, chance = await _token(fleet, number), chance_of(seed, number)
        clients.append(VirtualClient(f"c{number}", token, fleet.http, fleet.instances, chance))
    return clients
