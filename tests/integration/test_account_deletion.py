"""Deleting an account: nothing is left of it in any table, whatever happens at the same time."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import URL, inspect, text

from chatassist.adapters.persistence.engine import open_engine
from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.ports.persistence import Store
from tests.fixtures.aftermath import rows
from tests.fixtures.service import Answer, Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import ask, rate, regenerate, streaming
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import hangs, says
from tests.integration.test_deleting import deletes
from tests.integration.test_document import llm

MARK = "不可留下的话-4c1e"
NOBODYS = {"alembic_version", "instances", "jobs"}
"""Tables that never hold anything of a user's."""
BY_PSEUDONYM = {"usage_days"}
"""Tables that outlive an account, under a name that is not its own."""
OF_THE_GONE = {"erasures"}
"""Tables that hold something only of who is about to be gone."""


async def closes(person: Person, code: Any) -> Answer:
    return await person.http.post("/v1/user/account/delete", json={"code": code}, headers=person.bearer)


async def everything(database: URL) -> Mapping[str, str]:
    """All rows of all tables that the database has, as text."""
    engine = open_engine(database, pool_size=1)
    try:
        async with engine.connect() as db:
            tables = await db.run_sync(lambda sync: inspect(sync).get_table_names())
            return {name: str((await db.execute(text(f"SELECT * FROM {name}"))).all()) for name in tables}
    finally:
        await engine.dispose()


async def found_in(database: URL, marks: set[str]) -> set[str]:
    """Return the tables in which something of this is."""
    return {name for name, held in (await everything(database)).items() if any(mark in held for mark in marks)}


async def a_life(api: Api, name: str) -> tuple[Person, set[str]]:
    """Somebody who used everything, and all ids and words of his."""
    person = await api.login(f"dev:{name}", userInfo={"nickName": f"{MARK} {name}"})
    marks = {MARK, person.user["id"], f"dev:{name}"}
    sent = await person.says(f"{MARK} asked", clientMessageId="k-1")
    second = await person.says(f"{MARK} asked again", sessionId=sent["sessionId"], clientMessageId="k-2")
    third = await person.says("a key stays of this", sessionId=sent["sessionId"], clientMessageId="k-3")
    await regenerate(person, third["messageId"], clientMessageId="k-4")
    await rate(person, second["messageId"], "dislike", comment=MARK)
    await ask(person, third["messageId"], method="DELETE")
    thrown_away = await person.says("thrown away")
    token = data_of(await deletes(person, thrown_away["sessionId"]))["undoToken"]
    for each in (sent, second, third, thrown_away):
        marks |= {each["sessionId"], each["messageId"], each["userMessageId"]}
    return person, marks | {token}


async def test_nothing_of_a_deleted_account_is_left_in_any_table(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    """A table that is new and that this test does not know how to fill makes it fail."""
    vendor.script = says(f"{MARK} answered")
    api = await serve(settings_for(any_database, llm=llm(vendor)))
    (anna, marks), (boris, of_boris) = await a_life(api, "anna"), await a_life(api, "boris")
    phone = await api.login("dev:anna")
    tables = set(await everything(any_database))
    owned = tables - NOBODYS - BY_PSEUDONYM - OF_THE_GONE
    only_annas = marks - of_boris
    assert await found_in(any_database, only_annas) == owned, "the test fills every table that a user has rows in"
    used = (await everything(any_database))["usage_days"]

    assert data_of(await closes(anna, "dev:anna")) is None

    assert await found_in(any_database, only_annas) == set()
    assert await found_in(any_database, of_boris - only_annas) == owned, "and nothing of others is gone"
    assert (await everything(any_database))["usage_days"] == used, "the day is not refilled"
    assert (await everything(any_database))["erasures"] == "[]"
    for person in (anna, phone):
        assert reason_of(await person.get("/v1/user/info")) == (401, "login_ended")
        assert reason_of(await person.send("hello")) == (401, "login_ended")
        assert reason_of(await closes(person, "dev:anna")) == (401, "login_ended")
    assert data_of(await boris.get("/v1/user/info"))["openid"] == "dev:boris"


async def test_who_comes_again_is_somebody_new(person: Person, api: Api, any_database: URL) -> None:
    openid = person.user["openid"]
    sent = await person.says("hello", clientMessageId="k")
    data_of(await closes(person, openid))
    again = await api.login(openid)
    assert again.user["id"] != person.user["id"]
    assert reason_of(await ask(again, sent["messageId"], method="GET")) == (404, "message_not_found")
    assert reason_of(await again.send("hello", sessionId=sent["sessionId"])) == (404, "session_not_found")
    anew = await again.says("hello", clientMessageId="k")
    assert (anew["replayed"], anew["messageId"] == sent["messageId"]) == (False, False)
    assert await rows(any_database, "SELECT messages FROM usage_days") == [(2,)], "counted on as the same person"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"code": "dev:mallory"}, (403, "wrong_account")),
        ({"code": "nonsense"}, (400, "wechat_code_invalid")),
        ({"code": ""}, (400, "wechat_code_invalid")),
        ({}, (400, "invalid_request")),
        ({"code": None}, (400, "invalid_request")),
        ({"code": 5}, (400, "invalid_request")),
        ([], (400, "json_invalid")),
    ],
    ids=repr,
)
async def test_without_a_code_of_his_own_nobody_deletes_an_account(
    guest: Person, body: Any, expected: tuple[int, str]
) -> None:
    sent = await guest.says("hello")
    answer = await guest.http.post("/v1/user/account/delete", json=body, headers=guest.bearer)
    assert reason_of(answer) == expected
    assert (await guest.look(sent["messageId"]))["status"] == "complete"


async def test_whatever_runs_is_stopped_first(person: Person, vendor: LoopbackVendor, any_database: URL) -> None:
    vendor.script = hangs("so far")
    async with streaming(person, "saved") as saved, streaming(person, "saved too") as other:
        await saved.until_text("so far")
        await other.until_text("so far")
        await rows(any_database, f"UPDATE users SET save_history = {0}")
        async with streaming(person, "unsaved") as unsaved:
            await unsaved.until_text("so far")
            data_of(await closes(person, person.user["openid"]))
            for stream in (saved, other, unsaved):
                assert (await stream.done())["status"] == "stopped"
    await vendor.until(lambda: vendor.busy == 0, within=1)
    assert await rows(any_database, "SELECT id FROM messages") == []


async def test_what_runs_elsewhere_is_stopped_too(any_database: URL, serve: Serve, vendor: LoopbackVendor) -> None:
    vendor.script = hangs("so far")
    settings = settings_for(any_database, llm=llm(vendor))
    here, there = await serve(settings), await serve(settings)
    person = await here.login("dev:anna")
    async with streaming(person, "hello") as stream:
        await stream.until_text("so far")
        data_of(await closes(Person(there.http, person.token, person.user), "dev:anna"))
        await vendor.until(lambda: vendor.busy == 0, within=3)
        await stream.last()
    assert reason_of(await person.get("/v1/user/info")) == (401, "login_ended")
    assert await rows(any_database, "SELECT id FROM messages") == []


async def test_whatever_happens_at_the_same_time_leaves_no_row_behind(
    any_database: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    """Sends into old and new sessions, restarts, ends, ratings, deletions, logins: before it, or refused."""
    vendor.script = says("answer ", "and more")
    settings = settings_for(any_database, llm=llm(vendor))
    here, there = await serve(settings), await serve(settings)
    for turn in range(4):
        name = f"dev:anna-{turn}"
        person = await here.login(name)
        elsewhere = Person(there.http, person.token, person.user)
        sessions = [(await person.says(f"first {number}")) for number in range(3)]
        tasks: list[asyncio.Task[Answer]] = []
        for one, each in zip(sessions, (person, elsewhere, person), strict=True):
            tasks += [asyncio.create_task(each.send("more", sessionId=one["sessionId"])) for _ in range(2)]
            tasks += [asyncio.create_task(each.send("new", clientMessageId=f"k-{turn}")) for _ in range(2)]
            tasks.append(asyncio.create_task(ask(each, one["messageId"], "regenerate")))
            tasks.append(asyncio.create_task(ask(each, one["messageId"], "feedback", "PUT", json={"rating": "like"})))
            tasks.append(asyncio.create_task(ask(each, one["messageId"], method="DELETE")))
            tasks.append(asyncio.create_task(deletes(each, one["sessionId"])))
        await asyncio.sleep(0.005 * turn)
        both = [asyncio.create_task(closes(each, name)) for each in (person, elsewhere)]
        answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} <= {200, 400, 401, 404, 500}
        closed = sorted([answer.status_code for answer in await asyncio.gather(*both)])
        assert closed in ([200, 401], [200, 200]), "the second finds a dead token, or that it was quicker"
        held = await everything(any_database)
        assert not {table for table in held if person.user["id"] in held[table]}
        assert {held[table] for table in ("users", "logins", "sessions", "messages", "deletions", "erasures")} == {"[]"}


async def test_logins_that_race_with_it_belong_to_somebody(any_database: URL, serve: Serve) -> None:
    api = await serve(settings_for(any_database))
    for _ in range(3):
        person = await api.login("dev:anna")
        racing = [asyncio.create_task(api.login("dev:anna")) for _ in range(6)]
        await asyncio.sleep(0.002)
        await closes(person, "dev:anna")
        newer = await asyncio.gather(*racing)
        orphans = await rows(any_database, "SELECT id FROM logins WHERE user_id NOT IN (SELECT id FROM users)")
        assert orphans == []
        for each in newer:
            assert (await each.get("/v1/user/info")).status_code in (200, 401)


async def test_once_the_user_is_gone_the_rest_follows_even_if_the_database_breaks_in_between(
    any_database: URL, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatassist.domain.services import accounts

    async def breaks(store: Store, user_id: str) -> None:
        raise StoreUnavailable

    api = await serve(settings_for(any_database))
    person = await api.login("dev:anna")
    await person.says(MARK)
    with monkeypatch.context() as broken:
        broken.setattr(accounts, "_erase", breaks)
        assert data_of(await closes(person, "dev:anna")) is None
    assert reason_of(await person.get("/v1/user/info")) == (401, "login_ended")
    assert await found_in(any_database, {MARK}) == {"sessions", "messages"}
    await rows(any_database, "UPDATE erasures SET created_at = '2020-01-01 00:00:00'")
    await rows(any_database, "DELETE FROM jobs")
    await serve(settings_for(any_database))  # whichever process purges next
    async with asyncio.timeout(10):
        while await found_in(any_database, {MARK, person.user["id"]}):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)
