"""The OpenAI-compatible chat model against a vendor that does what real vendors do, on a real socket."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest

from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel, Options
from chatassist.domain.errors import LlmMisconfigured, LlmParameterRefused, LlmTimeout, LlmUnavailable, ModelFailed
from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.turns import FinishReason, Usage
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import (
    DONE,
    Behaviour,
    cut,
    drips,
    event,
    fails,
    floods,
    hangs,
    piece,
    redirects,
    resets,
    says,
    sends,
    stream_of,
)
from tests.integration.calling import calling
from tests.integration.heard import asking, hear

KEY = "sk-very-secret"


@pytest.fixture
async def model(vendor: LoopbackVendor) -> AsyncIterator[OpenAiCompatibleChatModel]:
    made = OpenAiCompatibleChatModel(
        calling(vendor.base_url, KEY),
        model="default-model",
        idle_timeout=0.3,
        options=Options(temperature=0.5, max_output_tokens=99, max_body=200_000),
    )
    yield made
    await made.aclose()
    await vendor.until(lambda: vendor.open_connections == 0)


async def test_the_request_holds_the_conversation_and_what_is_configured(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel
) -> None:
    system = Utterance(role=Role.SYSTEM, content="be brief")
    prompt = Prompt(utterances=[system, *asking("一", "two", "三😀").utterances])

    await hear(model, prompt)

    sent = vendor.requests[0]
    assert (sent.method, sent.path, sent.headers["authorization"]) == ("POST", "/v1/chat/completions", f"Bearer {KEY}")
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.body == {
        "model": "default-model",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "一"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "三😀"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 99,
    }


async def test_the_users_model_is_asked_for_and_what_is_not_configured_is_not_sent(vendor: LoopbackVendor) -> None:
    model = OpenAiCompatibleChatModel(calling(vendor.base_url), model="default", idle_timeout=5)

    await hear(model, asking("hi", model="another"))
    await model.aclose()

    assert vendor.requests[0].path == "/v1/chat/completions"
    assert vendor.requests[0].body.keys() == {"model", "messages", "stream", "stream_options"}
    assert vendor.requests[0].body["model"] == "another"
    assert "authorization" not in vendor.requests[0].headers, "where there is no key, none is made up"


async def test_a_bare_prompt_goes_without_all_that_is_optional(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel
) -> None:
    await hear(model, replace(asking("hi"), bare=True))

    assert vendor.requests[0].body == {
        "model": "default-model",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }


async def test_nothing_meant_for_openai_in_the_environment_reaches_the_vendor(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    model = OpenAiCompatibleChatModel(calling(vendor.base_url, KEY), model="m", idle_timeout=5)

    await hear(model)
    await model.aclose()

    assert "from-environment" not in str(vendor.requests[0].headers)


async def test_a_good_answer_ends_with_model_and_usage_and_frees_its_connection_for_the_next(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel
) -> None:
    vendor.answers(says("你", "好"), says("又", "好"))

    first, second = await hear(model), await hear(model)

    assert (first.text, second.text) == ("你好", "又好")
    assert (first.chunks[-1].model, first.usage) == ("loopback-1", Usage(input_tokens=7, output_tokens=5))
    assert vendor.connections_ever == 1


async def test_bytes_cut_anywhere_give_the_same_text(vendor: LoopbackVendor, model: OpenAiCompatibleChatModel) -> None:
    body = stream_of("汉字，", "👩‍👩‍👧 ", "𠮷野家")
    dice = random.Random(20261122)  # noqa: S311 - where to cut is no secret
    for places in [range(1, len(body)), *(dice.sample(range(len(body)), 9) for _ in range(20))]:
        vendor.answers(sends(*cut(body, *places)))

        heard = await hear(model)

        assert (heard.text, heard.finish) == ("汉字，👩‍👩‍👧 𠮷野家", FinishReason.STOP)


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        (says("so", " far", finish=None, counted=False, done=False), "so far"),
        (sends(event(piece("so far")), whole=False), "so far"),
        (resets("so far"), "so far"),
        (sends(b"<html><body>It works!</body></html>", content_type="text/html"), ""),
        (sends(), ""),
        (sends(DONE), ""),
        (sends(b"data: {broken\n\n"), ""),
        (sends(event(piece("so far")) + b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n'), "so far"),
        (sends(stream_of("ok"), headers={"Content-Encoding": "gzip"}), ""),
        (floods(b"data: " + b"x" * 50_000), ""),
        (floods(b": still here\n" * 999), ""),
    ],
    ids=["no finish", "cut", "reset", "html", "empty", "done", "broken", "utf8", "gzip", "long line", "endless"],
)
async def test_an_answer_that_is_none_is_unavailable_and_text_so_far_stands(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, behaviour: Behaviour, text: str
) -> None:
    vendor.answers(behaviour)

    heard = await hear(model)

    assert type(heard.error) is LlmUnavailable
    assert (heard.text, heard.finish) == (text, None)
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("behaviour", [hangs(head=False), hangs(), hangs("so far")], ids=["head", "body", "amid"])
async def test_silence_is_a_timeout(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, behaviour: Behaviour
) -> None:
    vendor.answers(behaviour)

    heard = await hear(model)

    assert type(heard.error) is LlmTimeout
    await vendor.until(lambda: vendor.busy == 0)
    assert vendor.requests[0].abandoned


async def test_a_vendor_that_drips_comments_is_alive(vendor: LoopbackVendor, model: OpenAiCompatibleChatModel) -> None:
    vendor.answers(drips(every=0.1, times=6))  # twice the idle timeout

    assert (await hear(model)).text == "late"


async def test_a_redirect_is_a_wrong_address_and_carries_no_conversation_away(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel
) -> None:
    async with LoopbackVendor().open() as elsewhere:
        vendor.answers(redirects(f"{elsewhere.base_url}/chat/completions"))

        heard = await hear(model)

        assert type(heard.error) is LlmMisconfigured
        assert elsewhere.connections_ever == 0


@pytest.mark.parametrize(
    "tail",
    [hangs("a"), drips(every=0.05, times=999), floods(), floods(b"data: " + b"x" * 50_000), resets("a")],
    ids=["hang", "drip", "flood", "long line", "reset"],
)
@pytest.mark.parametrize("done", [b"", DONE], ids=["without done", "with done"])
async def test_after_its_finish_reason_nothing_a_vendor_does_spoils_or_long_delays_a_reply(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, done: bytes, tail: Behaviour
) -> None:
    vendor.answers(drips(stream_of("all of it").removesuffix(DONE) + done, every=0, times=1, then=tail))
    began = time.monotonic()

    heard = await hear(model)

    assert (heard.text, heard.finish, heard.error) == ("all of it", FinishReason.STOP, None)
    assert heard.usage == Usage(input_tokens=7, output_tokens=5)
    assert time.monotonic() - began < 1.5
    await vendor.until(lambda: vendor.busy == 0)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_parameter_is_told_after_one_call(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, status: int
) -> None:
    vendor.answers(fails(status, {"error": {"message": "unknown field stream_options"}}), says("bare"))

    assert type((await hear(model)).error) is LlmParameterRefused
    assert len(vendor.requests) == 1


async def test_hundreds_of_random_cancels_leak_nothing(vendor: LoopbackVendor) -> None:
    model = OpenAiCompatibleChatModel(calling(vendor.base_url, KEY), model="m", idle_timeout=5)
    dice = random.Random(7)  # noqa: S311 - when to leave is no secret
    vendor.script = drips(event(piece("more")), every=0.001, times=4)

    async def cancelled(after: float) -> None:
        with suppress(TimeoutError, ModelFailed):
            async with asyncio.timeout(after):
                await hear(model)

    for _ in range(10):
        await asyncio.gather(*(cancelled(dice.uniform(0, 0.05)) for _ in range(40)))
    await vendor.until(lambda: vendor.busy == 0)
    vendor.script = says("still well")

    assert (await hear(model)).text == "still well"
    await model.aclose()
    await vendor.until(lambda: vendor.open_connections == 0)


async def test_a_reader_that_leaves_after_the_first_piece_frees_the_connection(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel
) -> None:
    vendor.answers(hangs("first"))

    async with aclosing(model.stream(asking())) as chunks:
        await anext(chunks)

    await vendor.until(lambda: vendor.open_connections == 0)
