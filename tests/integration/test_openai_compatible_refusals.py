"""What becomes of a vendor's no: the body shapes and codes of real vendors, as HTTP statuses and within HTTP 200."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from chatassist.adapters.httptools_transport import HttptoolsTransport
from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel
from chatassist.domain.errors import (
    ChatAssistError,
    ContextTooLong,
    LlmKeyRefused,
    LlmMisconfigured,
    LlmOverloaded,
    LlmParameterRefused,
    LlmTimeout,
    LlmUnavailable,
    LlmUnpaid,
)
from chatassist.domain.turns import FinishReason
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Behaviour, Call, event, fails, floods, hangs, piece, sends
from tests.integration.calling import calling
from tests.integration.heard import asking, hear

KEY = "sk-very-secret"
WORDS = "what the user said"


@pytest.fixture
async def model(vendor: LoopbackVendor) -> AsyncIterator[OpenAiCompatibleChatModel]:
    made = OpenAiCompatibleChatModel(calling(vendor.base_url, KEY), model="m", idle_timeout=5)
    yield made
    await made.aclose()


REFUSALS: list[tuple[int, object, type[ChatAssistError]]] = [
    (401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}, LlmKeyRefused),
    (401, "Invalid token", LlmKeyRefused),
    (403, {"error": {"code": "access_denied", "message": WORDS}}, LlmMisconfigured),
    (404, {"error": {"code": "model_not_found"}}, LlmMisconfigured),
    (404, "<html>404 page not found</html>", LlmMisconfigured),
    (402, {"error": {"message": "Insufficient Balance"}}, LlmUnpaid),
    (403, {"error": {"code": "AccountOverdueError"}}, LlmUnpaid),
    (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}, LlmUnpaid),
    (429, {"error": {"type": "exceeded_current_quota_error"}}, LlmUnpaid),
    (400, {"error": {"code": "Arrearage"}}, LlmUnpaid),
    (429, {"error": {"code": "1113"}}, LlmUnpaid),
    (429, {"error": {"type": "rate_limit_reached_error"}}, LlmOverloaded),
    (429, None, LlmOverloaded),
    (498, {"error": {"code": "capacity_exceeded"}}, LlmOverloaded),
    (503, "<html>Service Unavailable</html>", LlmOverloaded),
    (529, {"error": {"type": "overloaded_error"}}, LlmOverloaded),
    (400, {"error": {"code": "1302"}}, LlmOverloaded),
    (400, {"error": {"code": "context_length_exceeded"}}, ContextTooLong),
    (400, {"error": {"type": "invalid_request_error", "message": "exceeded model token limit: 8192"}}, ContextTooLong),
    (400, {"object": "error", "message": "maximum context length is 4096 tokens", "code": 400}, ContextTooLong),
    (400, {"error": {"code": "1261"}}, ContextTooLong),
    (400, {"error": {"code": "InvalidParameter"}}, LlmParameterRefused),
    (422, {"detail": [{"loc": ["body"]}]}, LlmParameterRefused),
    (408, None, LlmUnavailable),
    (409, None, LlmUnavailable),
    (500, {"error": {"type": "one_api_error", "message": WORDS}}, LlmUnavailable),
    (502, "<html>Bad Gateway</html>", LlmUnavailable),
    (504, None, LlmUnavailable),
    (500, ["x", {"y": [WORDS]}], LlmUnavailable),
]


@pytest.mark.parametrize(("status", "body", "expected"), REFUSALS)
async def test_a_refusal_is_sorted_and_tells_nobody_what_was_in_it(
    vendor: LoopbackVendor,
    model: OpenAiCompatibleChatModel,
    status: int,
    body: object,
    expected: type[ChatAssistError],
) -> None:
    vendor.script = fails(status, body)

    heard = await hear(model, asking(WORDS))

    assert type(heard.error) is expected
    assert heard.chunks == []
    assert str(status) in str(heard.error)
    assert not [secret for secret in (KEY, WORDS, "?", "127.0.0.1") if secret in str(heard.error)]


async def test_a_vendor_that_is_not_paid_is_not_worth_a_retry(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel
) -> None:
    vendor.answers(fails(402))

    error = (await hear(model)).error

    assert error is not None
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "9", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "86400"}, 120.0),
        ({"Retry-After": "soon"}, 5.0),
        ({}, 5.0),
    ],
)
async def test_an_overloaded_vendor_says_when_to_come_back(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, headers: dict[str, str], seconds: float
) -> None:
    vendor.answers(fails(429, {"error": {"message": "slow down"}}, headers))

    error = (await hear(model)).error

    assert type(error) is LlmOverloaded
    assert error.retry_after == pytest.approx(seconds)
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "content_filter", "innererror": {"content_filter_result": {}}}),
        (400, {"type": "content_filter", "message": "high risk"}),
        (400, {"code": "data_inspection_failed"}),
        (400, {"code": "DataInspectionFailed"}),
        (400, {"code": "1301", "contentFilter": [{"role": "user", "level": 1}]}),
        (400, {"code": "InputTextRiskDetection"}),
        (400, {"code": "OutputTextRiskDetection"}),
        (400, {"code": "SensitiveContentDetected.SevereViolation"}),
        (200, {"code": "1301"}),
        (200, {"code": 1026}),
    ],
)
async def test_refused_content_is_a_blocked_reply_after_one_call(
    vendor: LoopbackVendor, model: OpenAiCompatibleChatModel, status: int, error: dict[str, object]
) -> None:
    vendor.script = fails(status, {"error": error})

    heard = await hear(model)

    assert (heard.finish, heard.text, heard.error) == (FinishReason.BLOCKED, "", None)
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"error": {"message": "x"}}, LlmUnavailable),
        ({"error": "x"}, LlmUnavailable),
        ({"object": "error", "message": "x", "code": 500}, LlmUnavailable),
        ({"error": {"code": 429, "message": "x"}}, LlmOverloaded),
        ({"error": {"code": 402}}, LlmUnpaid),
        ({"error": {"type": "engine_overloaded_error"}}, LlmOverloaded),
        ({"code": "rpm_rate_limit_exceeded", "msg": "x"}, LlmOverloaded),
        ({"choices": None, "base_resp": {"status_code": 1004, "status_msg": "x"}}, LlmKeyRefused),
        ({"choices": None, "base_resp": {"status_code": 1039, "status_msg": "x"}}, LlmOverloaded),
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
