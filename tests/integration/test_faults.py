"""Turns survive: two instances, one database, one Redis, and everything that can go wrong between them.

The storm at the end is the judge: hundreds of turns by clients who behave as the contract says, while processes are
killed, frozen and ended and lines are cut; then the database is asked what is true.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest
from sqlalchemy import URL

from chatassist.adapters.persistence.migrate import migrate
from chatassist.settings import Settings
from tests.fixtures.aftermath import Aftermath, nothing_runs
from tests.fixtures.chaos import DRAIN_SECONDS, Chaos, Instance
from tests.fixtures.databases import new_database
from tests.fixtures.logs import RUN
from tests.fixtures.mariadb import MariaDbServer
from tests.fixtures.proxy import CommitCutter, Proxy
from tests.fixtures.redis import RedisServer
from tests.fixtures.scribe import Scribe
from tests.fixtures.service import Api, ServiceProcess, settings_for, variables_of
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.virtual_clients import PATIENCE, VirtualClient
from tests.integration.test_processes import vendor_variables

MakeProcess = Callable[[Mapping[str, str]], ServiceProcess]
_HAS_REDIS = "redis" in Settings.model_fields


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


@pytest.fixture(params=[True, False], ids=["with redis", "without redis"])
async def fleet(
    request: pytest.FixtureRequest,
    start_mariadb: Callable[[], MariaDbServer],
    process: MakeProcess,
    vendor: LoopbackVendor,
) -> AsyncIterator[Fleet]:
    if request.param and not _HAS_REDIS:
        pytest.skip("the service does not know Redis yet")
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
            "CHATASSIST_LLM__IDLE_TIMEOUT": "2",
            "CHATASSIST_LLM__DEADLINE": "20",
        }
        redis = None
        if redis_server:
            proxy = await stack.enter_async_context(Proxy(redis_server.port).open())
            variables["CHATASSIST_REDIS__URL"] = f"redis://127.0.0.1:{proxy.port}/0"
            redis = redis_server, proxy
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=50)
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=PATIENCE, limits=limits, trust_env=False))
        instances = [Instance(process(variables)) for _ in range(2)]
        await asyncio.gather(*(instance.start() for instance in instances))
        yield Fleet(instances, http, database, server, mysql, vendor, redis)


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
async def test_a_storm_loses_nothing_doubles_nothing_and_garbles_nothing(fleet: Fleet) -> None:
    seed = int(os.environ.get("CHATASSIST_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    scribe = Scribe(seed)
    fleet.vendor.script = scribe
    many = fleet.redis is not None
    faults = ["kill", "freeze", "terminate", "cut_everything", "kill_database"]
    if many:
        faults += ["kill", "nap", "lose_redis", "freeze_redis"]
    chaos = Chaos(fleet.instances, (fleet.mariadb, fleet.mysql), fleet.redis, random.Random(seed))
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
    print(f"seed {seed}: {len(wishes)} wishes, {dict(chaos.done)}, {dict(counted)}")


async def _clients(fleet: Fleet, seed: int, count: int) -> list[VirtualClient]:
    """Log in everybody, before the storm."""
    clients = []
    for number in range(count):
        async with httpx2.AsyncClient(base_url=fleet.instances[number % 2].base_url, trust_env=False) as http:
            person = await Api(http, "").login(f"dev:storm-{number}")
        chance = random.Random(f"{seed}/{number}")
        clients.append(VirtualClient(f"c{number}", person.token, fleet.http, fleet.instances, chance))
    return clients
