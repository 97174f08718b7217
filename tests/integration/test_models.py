"""Models over HTTP: which there are, which one answers, and what happens where none has room."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers
from sqlalchemy import URL

from chatassist.adapters.llm.scripted import ScriptedChatModel
from chatassist.container.wiring import Container
from chatassist.domain.ports.llm import Offer
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Answer, Api, Person, Serve, data_of, reason_of, settings_for
from tests.fixtures.streams import ask, regenerate, regenerating, streamed
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import fails
from tests.integration.test_processes import rows
from tests.integration.test_unsaved import keep_nothing

PATH = "/v1/ai/models"
LARGE = Offer(model="large", name="大模型")
SMALL = Offer(model="loopback-1", name="小模型", default=True)

Offering = Callable[..., dict[str, Any]]


@pytest.fixture
def offering(vendor: LoopbackVendor, tmp_path: Path) -> Offering:
    """Return settings for the loopback vendor with these models, in a file that is written anew each time."""

    def offer(*offers: Offer) -> dict[str, Any]:
        models = ", ".join(
            f'{{ id = "{each.model}", name = "{each.name}", default = {str(each.default).lower()} }}' for each in offers
        )
        file = tmp_path / "vendors.toml"
        row = f'[[vendor]]\nkind = "openai_compatible"\nbase_url = "{vendor.base_url}"\nmodels = [{models}]\n'
        file.write_text(row, encoding="utf-8")
        return {"vendors_file": str(file), "max_calls": 1}

    return offer


@pytest.fixture
async def chooser(any_database: URL, serve: Serve, offering: Offering) -> Person:
    """Somebody who has a choice, on each database."""
    person: Person = await (await serve(settings_for(any_database, llm=offering(SMALL, LARGE)))).login()
    return person


def asked(vendor: LoopbackVendor) -> list[str]:
    """Which models the vendor was asked for, request by request."""
    return [request.body["model"] for request in vendor.requests]


# --- The list -------------------------------------------------------------------------------------------------------


async def test_the_operators_models_are_listed_in_his_order(chooser: Person) -> None:
    answer = await chooser.get(PATH)
    assert data_of(answer) == {
        "items": [
            {"model": "loopback-1", "name": "小模型", "default": True},
            {"model": "large", "name": "大模型", "default": False},
        ],
        "nextCursor": None,
        "hasMore": False,
    }
    assert answer.headers["Cache-Control"] == "no-store"


async def test_one_configured_model_is_a_list_of_one_that_can_be_named(guest: Person, quick_api: Api) -> None:
    keyless = await quick_api.login()
    for person, model in ((guest, "loopback-1"), (keyless, "scripted")):
        listed = data_of(await person.get(PATH))["items"]
        assert listed == [{"model": model, "name": model, "default": True}]
        assert (await person.says("hello", model=model))["status"] == "complete"


async def test_the_list_is_for_users_and_looking_at_it_counts_as_a_read(sqlite_url: URL, serve: Serve) -> None:
    api = await serve(settings_for(sqlite_url, limits={"reads_per_minute": 1}))
    assert reason_of(await api.http.get(PATH)) == (401, "token_missing")
    person = await api.login()
    data_of(await person.get(PATH))
    limited = await person.get(PATH)
    assert reason_of(limited) == (429, "too_many_reads")
    assert limited.headers["Retry-After"]
    assert reason_of(await person.http.post(PATH, headers=person.bearer)) == (405, "method_not_allowed")


# --- The choice -----------------------------------------------------------------------------------------------------


async def test_a_session_goes_on_with_the_model_that_was_named_last(chooser: Person, vendor: LoopbackVendor) -> None:
    session = (await chooser.says("one"))["sessionId"]
    await chooser.says("two", sessionId=session, model="large")
    await streamed(chooser, "three", sessionId=session)
    await streamed(chooser, "four", sessionId=session, model="loopback-1")
    await chooser.says("five", sessionId=session)
    assert asked(vendor) == ["loopback-1", "large", "large", "loopback-1", "loopback-1"]
    opened = (await chooser.says("six", model="large"))["sessionId"]
    await chooser.says("seven", sessionId=opened)
    await chooser.says("eight")
    assert asked(vendor)[5:] == ["large", "large", "loopback-1"], "each session has its own"


async def test_an_unknown_model_is_refused_and_chooses_nothing(chooser: Person, vendor: LoopbackVendor) -> None:
    sent = await chooser.says("one", model="large")
    refused = await chooser.send("two", sessionId=sent["sessionId"], model="enormous")
    assert reason_of(refused) == (400, "model_unknown")
    version = await ask(chooser, sent["messageId"], "regenerate", json={"model": "enormous"})
    assert reason_of(version) == (400, "model_unknown")
    await chooser.says("three", sessionId=sent["sessionId"])
    assert asked(vendor) == ["large", "large"]


async def test_a_choice_that_is_gone_from_the_list_gives_way_to_the_default(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, offering: Offering
) -> None:
    settings = settings_for(any_database, llm=offering(SMALL, LARGE))
    before = await (await serve(settings)).login()
    vendor.answers("one", fails(500))
    session = (await before.says("one", model="large"))["sessionId"]
    failed = await before.send("fails", sessionId=session, model="large", clientMessageId="k")
    assert failed.status_code == 500
    offering(SMALL)
    after = Person((await serve(settings)).http, before.token, before.user)
    assert (await after.says("two", sessionId=session))["status"] == "complete"
    assert asked(vendor) == ["large", "large", "loopback-1"]
    again = await after.send("fails", sessionId=session, model="large", clientMessageId="k")
    assert reason_of(again) == (400, "model_unknown"), "what is named is not changed in silence"
    await before.says("three", sessionId=session)
    assert asked(vendor)[3:] == ["large"], "it is still the session's"


async def test_another_version_is_by_what_it_names_for_itself_alone_else_by_the_sessions(
    chooser: Person, vendor: LoopbackVendor
) -> None:
    sent = await chooser.says("one", model="large")
    await regenerate(chooser, sent["messageId"], model="loopback-1")
    async with regenerating(chooser, sent["messageId"]) as stream:
        await stream.done()
    await chooser.says("two", sessionId=sent["sessionId"])
    assert asked(vendor) == ["large", "loopback-1", "large", "large"]


async def test_a_restart_is_by_the_model_that_was_named_then_else_by_the_sessions(
    chooser: Person, vendor: LoopbackVendor
) -> None:
    vendor.answers(fails(500), fails(500))
    first = await chooser.send("named", model="loopback-1", clientMessageId="named")
    session = first.json()["turn"]["sessionId"]
    assert (await chooser.send("unnamed", sessionId=session, clientMessageId="unnamed")).status_code == 500
    await chooser.says("chooses", sessionId=session, model="large")
    await chooser.says("named", sessionId=session, model="loopback-1", clientMessageId="named")
    await chooser.says("unnamed", sessionId=session, clientMessageId="unnamed")
    await chooser.says("goes on", sessionId=session)
    assert asked(vendor) == ["loopback-1", "loopback-1", "large", "loopback-1", "large", "large"]


async def test_a_key_compares_what_was_sent_and_not_what_was_chosen(chooser: Person, vendor: LoopbackVendor) -> None:
    session = (await chooser.says("one", model="large"))["sessionId"]
    for key, model in (("without", None), ("with", "large")):
        first = await chooser.says("two", sessionId=session, clientMessageId=key, model=model)
        again = await chooser.says("two", sessionId=session, clientMessageId=key, model=model)
        assert (again["messageId"], again["replayed"]) == (first["messageId"], True)
        other = "large" if model is None else None
        mismatch = await chooser.send("two", sessionId=session, clientMessageId=key, model=other)
        assert reason_of(mismatch) == (400, "idempotency_mismatch")
    assert asked(vendor) == ["large"] * 3


async def test_the_choice_is_in_the_export(chooser: Person) -> None:
    session = (await chooser.says("one", model="large"))["sessionId"]
    await chooser.says("elsewhere")
    exported = (await chooser.get("/v1/user/export")).json()["sessions"]
    assert {one["sessionId"] == session: one["model"] for one in exported} == {True: "large", False: None}
    markdown = (await chooser.get("/v1/user/export?format=markdown")).text
    assert markdown.count("- 所选模型：large\n") == 1


# --- Nothing saved --------------------------------------------------------------------------------------------------


async def hides_and_goes_on(chooser: Person, other_door: Person) -> None:
    """Continue a saved session, then the unsaved one that this opened, by turns through both doors."""
    saved = (await chooser.says("kept", model="large"))["sessionId"]
    await keep_nothing(chooser)
    hidden = (await other_door.says("hidden", sessionId=saved))["sessionId"]
    assert hidden != saved
    await chooser.says("hidden too", sessionId=hidden, model="loopback-1")
    sent = await other_door.says("and this", sessionId=hidden)
    await regenerate(chooser, sent["messageId"], model="large")
    await other_door.says("goes on", sessionId=hidden)


HIDDEN = ["large", "large", "loopback-1", "loopback-1", "large", "loopback-1"]


async def test_an_unsaved_session_has_a_choice_too_and_begins_with_that_of_the_one_it_continues(
    chooser: Person, vendor: LoopbackVendor, any_database: URL
) -> None:
    await hides_and_goes_on(chooser, chooser)
    assert asked(vendor) == HIDDEN
    assert await rows(any_database, "SELECT model FROM sessions") == [("large",)]


async def test_with_redis_it_has_one_choice_on_all_instances(
    any_database: URL, serve: Serve, vendor: LoopbackVendor, offering: Offering, shared_redis: RedisServer
) -> None:
    settings = settings_for(any_database, llm=offering(SMALL, LARGE), redis={"url": shared_redis.url})
    here, there = await serve(settings), await serve(settings)
    person = await here.login()
    await hides_and_goes_on(person, Person(there.http, person.token, person.user))
    assert asked(vendor) == HIDDEN


# --- No room --------------------------------------------------------------------------------------------------------


class Crowded(ScriptedChatModel):
    """A model that can be full, and that notes who asked for what."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.asked: list[str | None] = []

    def room(self, model: str | None) -> float:
        self.asked.append(model)
        return 0 if self.full else 1


@pytest.fixture
def crowded() -> Iterator[Crowded]:
    model = Crowded()
    Container.model.override(providers.Object(model))
    yield model
    Container.model.reset_override()


def busy(answers: Sequence[Answer]) -> list[Any]:
    return [(*reason_of(answer), answer.headers["Retry-After"], "turn" in answer.json()) for answer in answers]


async def test_where_no_vendor_has_room_nothing_is_stored_or_counted_and_the_client_is_told_when_to_come_again(
    any_database: URL, serve: Serve, crowded: Crowded
) -> None:
    person = await (await serve(settings_for(any_database, limits={"sends_per_minute": 3}))).login()
    first = await person.says("let in", clientMessageId="k")
    crowded.full, crowded.asked = True, []

    async def wish(path: str, **body: Any) -> Answer:
        answer: Answer = await person.http.post(f"/v1/chat/message{path}", json=body, headers=person.bearer)
        return answer

    version = f"/{first['messageId']}/regenerate"
    refused = [
        await wish("", content="sent away", clientMessageId="r", model="scripted"),
        await wish("/stream", content="sent away", sessionId=first["sessionId"]),
        await wish(version, model="scripted"),
        await wish(f"{version}/stream"),
    ]
    assert busy(refused) == [(429, "llm_busy", "5", False)] * 4
    assert crowded.asked == ["scripted", None, "scripted", None]
    assert len(await rows(any_database, "SELECT id FROM messages")) == 2
    assert len(await rows(any_database, "SELECT id FROM sessions")) == 1
    assert data_of(await person.get("/v1/user/usage"))["messagesUsed"] == 1
    assert (await person.says("let in", clientMessageId="k"))["replayed"], "what is there needs no room"
    crowded.full = False
    assert (await person.says("sent away", clientMessageId="r", model="scripted"))["replayed"] is False
    await regenerate(person, first["messageId"])
    assert reason_of(await person.send("one too many")) == (429, "too_many_sends")
