"""A whole service with a vendors file: who is asked for what, and who answers when the first does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fixtures.logs import RUN
from tests.fixtures.service import Api, Serve, data_of, reason_of, settings_for
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, event, fails, hangs, piece, resets, says

KEYS = {"FIRST_KEY": "sk-loopback-first", "SECOND_KEY": "sk-loopback-second"}
FILE = """
[[vendor]]
name = "first"
kind = "deepseek"
base_url = "{first}"
api_key_env = "FIRST_KEY"
models = [{{ id = "one", name = "第一" }}, {{ id = "both" }}, {{ id = "titles-1", public = false }}]

[[vendor]]
name = "second"
kind = "qwen"
base_url = "{second}"
api_key_env = "SECOND_KEY"
thinking = false
models = [{{ id = "two", upstream = "qwen-two" }}, {{ id = "both", upstream = "qwen-both" }}]
"""


@dataclass(frozen=True)
class Two:
    """Two vendors and the service before them."""

    api: Api
    first: LoopbackVendor
    second: LoopbackVendor

    @property
    def asked(self) -> tuple[list[str], list[str]]:
        """The models that each was asked for."""
        return (
            [request.body["model"] for request in self.first.requests],
            [request.body["model"] for request in self.second.requests],
        )


def names_itself() -> Behaviour:
    """Say something, by the model that was asked for."""

    async def behave(call: Call) -> None:
        model = call.request.body["model"]
        await call.write(event({**piece("well", "stop"), "model": model}))
        await call.end()

    return behave


Start = Callable[..., Any]


@pytest.fixture
async def start(sqlite_url: URL, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
        RUN.keep_private(key)
    async with AsyncExitStack() as stack:

        async def begin(**llm: Any) -> Two:
            first, second = [await stack.enter_async_context(LoopbackVendor().open()) for _ in range(2)]
            first.script = second.script = names_itself()
            file = tmp_path / "vendors.toml"
            file.write_text(FILE.format(first=first.base_url, second=second.base_url), encoding="utf-8")
            settings = settings_for(sqlite_url, llm={"vendors_file": str(file), **llm})
            return Two(await serve(settings), first, second)

        yield begin


async def test_the_first_vendor_answers_with_its_default(start: Start) -> None:
    two = await start()
    person = await two.api.login()
    sent = await person.says("hello")
    assert (sent["model"], sent["reply"]["content"]) == ("one", "well")
    assert two.asked == (["one"], [])
    assert two.first.requests[0].headers["authorization"] == "Bearer sk-loopback-first"


async def test_a_named_model_goes_to_the_vendor_that_has_it_under_the_name_it_has_there(start: Start) -> None:
    two = await start()
    person = await two.api.login()
    assert (await person.says("hello", model="two"))["model"] == "qwen-two"
    assert two.asked == ([], ["qwen-two"])
    request = two.second.requests[0]
    assert request.headers["authorization"] == "Bearer sk-loopback-second"
    assert request.body["enable_thinking"] is False, "as its row says, in its vendor's way"
    assert reason_of(await person.send("hello", model="titles-1")) == (400, "model_unknown"), "it is not public"
    assert reason_of(await person.send("hello", model="qwen-two")) == (400, "model_unknown"), "users know it as two"


@pytest.mark.parametrize(
    "failing",
    [
        fails(402, {"error": {"message": "Insufficient Balance"}}),
        fails(401, {"error": {"message": "no such key"}}),
        fails(404, {"error": {"code": "model_not_found"}}),
        fails(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "30"}),
        fails(503, "<html>busy</html>", headers={"Retry-After": "60"}),
        hangs(head=False),
    ],
    ids=["unpaid", "key", "model", "limited", "overloaded", "silent"],
)
async def test_the_second_answers_where_the_first_does_not(start: Start, failing: Behaviour) -> None:
    """And the reply names the model that really answered."""
    two = await start(idle_timeout=0.3)
    two.first.script = failing
    person = await two.api.login()
    sent = await person.says("hello")
    assert (sent["model"], sent["status"], sent["reply"]["content"]) == ("qwen-two", "complete", "well")
    assert (await person.look(sent["messageId"]))["model"] == "qwen-two"
    assert two.asked == (["one"], ["qwen-two"])


async def test_a_vendor_that_is_down_is_asked_once_more_and_then_the_next(start: Start) -> None:
    two = await start()
    two.first.script = resets()
    person = await two.api.login()
    assert (await person.says("hello", model="both"))["model"] == "qwen-both"
    assert two.asked == (["both", "both"], ["qwen-both"]), "the next under the name it has for the same model"


async def test_what_the_first_refuses_as_unsafe_is_asked_of_nobody_else(start: Start) -> None:
    two = await start()
    two.first.answers(fails(400, {"error": {"code": "content_filter"}}))
    person = await two.api.login()
    assert (await person.says("hello"))["finishReason"] == "blocked"
    assert two.asked == (["one"], [])


async def test_once_something_was_said_nobody_else_is_asked(start: Start) -> None:
    two = await start()
    two.first.script = resets("half a ")
    person = await two.api.login()
    assert reason_of(await person.send("hello")) == (500, "llm_unavailable")
    assert two.asked == (["one"], [])


async def test_where_nobody_answers_the_turn_costs_three_calls_and_tells_no_secret(start: Start) -> None:
    two = await start()
    for vendor in (two.first, two.second):
        vendor.script = fails(500, json.dumps({"error": {"message": "sk-loopback-first hello"}}))
    person = await two.api.login()
    answer = await person.send("hello")
    assert reason_of(answer) == (500, "llm_unavailable")
    assert len(two.first.requests) + len(two.second.requests) == 3
    assert not any(key in answer.text for key in KEYS.values())


async def test_a_vendor_that_was_not_paid_is_left_alone_by_the_next_turn(start: Start) -> None:
    two = await start()
    two.first.script = fails(402)
    person = await two.api.login()
    for _ in range(3):
        assert (await person.says("hello"))["model"] == "qwen-two"
    assert two.asked == (["one"], ["qwen-two"] * 3)


async def test_titles_are_made_by_a_model_of_the_file_that_nobody_else_may_name(start: Start) -> None:
    two = await start(title_model="titles-1")
    two.first.script = says("A title")
    person = await two.api.login()
    session = (await person.says("hello"))["sessionId"]
    await two.first.until(lambda: len(two.first.requests) == 2)
    assert two.asked == (["one", "titles-1"], [])
    assert data_of(await person.get(f"/v1/chat/sessions/{session}"))["sessionId"] == session


async def test_a_vendor_that_takes_one_call_at_a_time_gets_titles_between_replies(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor
) -> None:
    """Though a title could begin long before its reply ends."""
    order: list[str] = []
    entitled = asyncio.Event()

    async def behave(call: Call) -> None:
        model = call.request.body["model"]
        order.append(f"{model} begins")
        await call.event(piece("words enough for a title" * 20))
        if model == "m":
            with suppress(TimeoutError):
                await asyncio.wait_for(entitled.wait(), 0.3)
        else:
            entitled.set()
        order.append(f"{model} ends")
        await call.event(piece(finish="stop"))
        await call.end()

    vendor.script = behave
    one = {"vendor": "vllm", "base_url": vendor.base_url, "model": "m", "title_model": "t"}
    api = await serve(settings_for(sqlite_url, llm={**one, "overrides": {"at_once": 1}}))
    person = await api.login()
    await person.says("hello")
    await vendor.until(lambda: len(order) == 4)
    assert order == ["m begins", "m ends", "t begins", "t ends"]


async def test_no_key_is_in_any_line_of_the_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    two = await start()
    two.first.script = fails(401, {"error": {"message": "Incorrect API key provided: sk-loopback-first"}})
    person = await two.api.login()
    await person.says("hello")
    assert "vendor refuses to serve us" in caplog.text
    assert not any(key in caplog.text for key in KEYS.values())
