"""What becomes of a vendor's no where it is odder than in `test_vendor_refusals`, and of what libraries raise."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from chatassist.adapters.httptools_transport import HttptoolsTransport
from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel
from chatassist.domain.errors import (
    ChatAssistError,
    LlmKeyRefused,
    LlmMisconfigured,
    LlmOverloaded,
    LlmTimeout,
    LlmUnavailable,
    LlmUnpaid,
)
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, event, fails, floods, hangs, piece, sends
from tests.integration.calling import calling
from tests.integration.heard import hear

KEY = "sk-very-secret"


@pytest.fixture
async def model(vendor: LoopbackVendor) -> AsyncIterator[OpenAiCompatibleChatModel]:
    made = OpenAiCompatibleChatModel(calling(vendor.base_url, KEY), model="m", idle_timeout=5)
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"error": {"message": "x"}}, LlmUnavailable),
        ({"error": "x"}, LlmUnavailable),
        ({"error": {"code": 402}}, LlmUnpaid),
        ({"error": {"type": "engine_overloaded_error"}}, LlmOverloaded),
        ({"choices": None, "base_resp": {"status_code": {}}}, LlmUnavailable),
    ],
)
@pytest.mark.parametrize("before", [b"", event(piece("so far"))], ids=["first", "amid"])
async def test_a_refusal_within_200_is_found(
    vendor: LoopbackVendor,
    model: OpenAiCompatibleChatModel,
    before: bytes,
    document: dict[str, object],
    expected: type[ChatAssistError],
) -> None:
    vendor.answers(sends(before + event(document)), fails(500))

    heard = await hear(model)

    assert type(heard.error) is expected
    assert heard.text == ("so far" if before else "")
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("body", [floods(b"x" * 9_000), hangs()], ids=["endless", "never"])
async def test_a_refusal_is_sorted_before_its_body_is_whole(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, monkeypatch: pytest.MonkeyPatch, body: Behaviour
) -> None:
    monkeypatch.setattr("chatassist.adapters.openai_client._REFUSAL_WAIT", 0.3)

    async def refuse(call: Call) -> None:
        await call.head(401)
        await body(call)

    vendor.answers(refuse)

    async with asyncio.timeout(1):  # the idle timeout is 5
        assert type((await hear(model)).error) is LlmKeyRefused
        await vendor.until(lambda: vendor.busy == 0)


async def test_of_an_endless_refusal_little_is_read(vendor: LoopbackVendor, model: OpenAiCompatibleChatModel) -> None:
    sent = 0

    async def refuse(call: Call) -> None:
        nonlocal sent
        await call.head(401)
        while True:
            sent += 9_000
            await call.write(b"x" * 9_000)

    vendor.answers(refuse)

    async with asyncio.timeout(1):  # reading for ever would take 2 s
        await hear(model)

    assert sent < 50_000_000  # what the sockets hold besides


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (httpx2.ConnectTimeout("x"), LlmTimeout),
        (httpx2.ReadTimeout("x"), LlmTimeout),
        (httpx2.PoolTimeout("x"), LlmTimeout),
        (httpx2.ConnectError("x"), LlmUnavailable),
        (httpx2.ReadError("x"), LlmUnavailable),
        (httpx2.RemoteProtocolError("x"), LlmUnavailable),
        (httpx2.UnsupportedProtocol("x"), LlmMisconfigured),
        (httpx2.InvalidURL("x"), LlmMisconfigured),
        (OSError("x"), LlmUnavailable),
    ],
)
async def test_no_exception_of_a_library_passes(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[ChatAssistError]
) -> None:
    async def fail(_: HttptoolsTransport, request: httpx2.Request) -> httpx2.Response:
        assert request.url == "http://vendor.test/v1/chat/completions"
        raise raised

    monkeypatch.setattr(HttptoolsTransport, "handle_async_request", fail)
    model = OpenAiCompatibleChatModel(calling("http://vendor.test/v1", KEY), model="m", idle_timeout=5)

    heard = await hear(model)
    await model.aclose()

    assert type(heard.error) is expected


@pytest.mark.parametrize("base_url", ["nonsense", "", "ftp://vendor.test"])
async def test_an_address_that_is_none_is_the_operators_matter(base_url: str) -> None:
    model = OpenAiCompatibleChatModel(calling(base_url, KEY), model="m", idle_timeout=5)

    heard = await hear(model)
    await model.aclose()

    assert type(heard.error) is LlmMisconfigured


@pytest.mark.parametrize("key", ["two\nlines", "密钥"])
async def test_a_key_that_fits_no_header_is_the_operators_matter(vendor: LoopbackVendor, key: str) -> None:
    model = OpenAiCompatibleChatModel(calling(vendor.base_url, key), model="m", idle_timeout=5)

    heard = await hear(model)
    await model.aclose()

    assert type(heard.error) is LlmMisconfigured
    assert vendor.requests == []


async def test_a_vendor_that_nobody_runs_is_unavailable() -> None:
    model = OpenAiCompatibleChatModel(calling("http://127.0.0.1:1/v1", KEY), model="m", idle_timeout=5)

    heard = await hear(model)
    await model.aclose()

    assert type(heard.error) is LlmUnavailable
