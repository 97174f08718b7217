"""Every refusal of every vendor, as it words it, through the adapter with that vendor's row of the catalogue."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel
from chatassist.domain.errors import (
    ChatAssistError,
    ContextTooLong,
    LlmKeyRefused,
    LlmMisconfigured,
    LlmOverloaded,
    LlmParameterRefused,
    LlmUnavailable,
    LlmUnpaid,
)
from chatassist.domain.turns import FinishReason
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import DATE, Behaviour, event, piece, resets, sends
from tests.integration.calling import calling
from tests.integration.heard import asking, hear

KEY = "sk-very-secret"
WORDS = "what the user said"
BLOCKED = FinishReason.BLOCKED
Outcome = type[ChatAssistError] | FinishReason


def said(phrase: str = "refused") -> str:
    """A message that gives everything away."""
    return f"{phrase}: {KEY} {WORDS}"


def openai(code: object = None, kind: str | None = None, phrase: str = "refused", **more: object) -> dict[str, object]:
    """The shape that OpenAI gave the others."""
    return {"error": {"message": said(phrase), "type": kind, "param": None, "code": code, **more}}


def kimi(kind: str, phrase: str = "refused") -> dict[str, object]:
    return {"error": {"type": kind, "message": said(phrase)}}


def zhipu(code: int, **more: object) -> dict[str, object]:
    return {"error": {"code": str(code), "message": said()}, **more}


def siliconflow(code: int) -> dict[str, object]:
    return {"code": code, "message": said(), "data": None}


def minimax(code: int, phrase: str = "refused", **more: object) -> dict[str, object]:
    return {"id": "1", "choices": None, "base_resp": {"status_code": code, "status_msg": said(phrase)}, **more}


def openrouter(code: int, phrase: str = "refused", **metadata: object) -> dict[str, object]:
    return {"error": {"code": code, "message": said(phrase), "metadata": {"provider_name": "x", **metadata}}}


def vllm(code: int, phrase: str = "refused") -> dict[str, object]:
    return {"object": "error", "message": said(phrase), "type": "BadRequestError", "param": None, "code": code}


TOO_LONG = "This model's maximum context length is 4096 tokens"
HTML = f"<html><body>{WORDS}</body></html>"
FLAGGED = piece("what must not be shown")
FLAGGED["choices"][0] |= {"flag": 3, "ban_round": -1}

# vendor, status, body (a str is no JSON), what becomes of it
TABLE: list[tuple[str, int, object, Outcome]] = [
    ("openai", 401, openai("invalid_api_key", "invalid_request_error"), LlmKeyRefused),
    ("openai", 403, openai("unsupported_country_region_territory", "request_forbidden"), LlmMisconfigured),
    ("openai", 404, openai("model_not_found", "invalid_request_error"), LlmMisconfigured),
    ("openai", 400, openai("context_length_exceeded", "invalid_request_error"), ContextTooLong),
    ("openai", 400, openai("unsupported_parameter", "invalid_request_error"), LlmParameterRefused),
    ("openai", 429, openai("rate_limit_exceeded", "tokens"), LlmOverloaded),
    ("openai", 429, openai("insufficient_quota", "insufficient_quota"), LlmUnpaid),
    ("openai", 429, openai("slow_down"), LlmOverloaded),
    ("openai", 503, openai("server_is_overloaded"), LlmOverloaded),
    (
        "azure",
        400,
        openai("content_filter", innererror={"content_filter_result": {"hate": {"filtered": True}}}),
        BLOCKED,
    ),
    ("azure", 400, openai(None, innererror={"code": "ResponsibleAIPolicyViolation"}), BLOCKED),
    ("azure", 404, openai("DeploymentNotFound"), LlmMisconfigured),
    ("azure", 429, openai("429"), LlmOverloaded),
    (
        "azure",
        401,
        {"statusCode": 401, "message": said("Access denied due to invalid subscription key")},
        LlmKeyRefused,
    ),
    ("deepseek", 400, openai("invalid_request_error", "invalid_request_error"), LlmParameterRefused),
    ("deepseek", 401, openai("invalid_request_error", "authentication_error"), LlmKeyRefused),
    ("deepseek", 402, openai("invalid_request_error", "unknown_error", "Insufficient Balance"), LlmUnpaid),
    ("deepseek", 422, openai("invalid_request_error"), LlmParameterRefused),
    ("deepseek", 429, openai("rate_limit"), LlmOverloaded),
    ("deepseek", 500, openai("internal_error"), LlmUnavailable),
    ("deepseek", 503, openai("service_unavailable_error"), LlmOverloaded),
    ("qwen", 400, {**openai("data_inspection_failed", "data_inspection_failed"), "request_id": "1"}, BLOCKED),
    ("qwen", 400, {"code": "DataInspectionFailed", "message": said(), "request_id": "1"}, BLOCKED),
    ("qwen", 400, openai("Arrearage", "Arrearage"), LlmUnpaid),
    ("qwen", 401, openai("invalid_api_key", "invalid_request_error"), LlmKeyRefused),
    ("qwen", 403, openai("access_denied"), LlmMisconfigured),
    ("qwen", 403, openai("AllocationQuota.FreeTierOnly"), LlmUnpaid),
    ("qwen", 404, openai("model_not_found"), LlmMisconfigured),
    ("qwen", 429, {"code": "Throttling.RateQuota", "message": said()}, LlmOverloaded),
    ("qwen", 429, {"code": "Throttling.AllocationQuota", "message": said()}, LlmOverloaded),
    ("qwen", 429, openai("insufficient_quota", "insufficient_quota"), LlmOverloaded),
    (
        "qwen",
        400,
        openai("invalid_parameter_error", None, "Range of input length should be [1, 30720]"),
        ContextTooLong,
    ),
    ("qwen", 400, openai("invalid_parameter_error", None, "only support stream mode"), LlmParameterRefused),
    *(("zhipu", 401, zhipu(code), LlmKeyRefused) for code in (1000, 1001, 1002, 1003, 1004)),
    *(("zhipu", 429, zhipu(code), LlmKeyRefused) for code in (1112, 1121)),
    ("zhipu", 429, zhipu(1113), LlmUnpaid),
    *(("zhipu", 400, zhipu(code), LlmParameterRefused) for code in (1210, 1212, 1213, 1214, 1215)),
    ("zhipu", 400, zhipu(1211), LlmMisconfigured),
    ("zhipu", 400, zhipu(1261), ContextTooLong),
    ("zhipu", 400, zhipu(1301, contentFilter=[{"role": "user", "level": 1}]), BLOCKED),
    ("zhipu", 400, zhipu(1301), BLOCKED),
    *(("zhipu", 429, zhipu(code), LlmOverloaded) for code in (1302, 1303, 1304, 1305, 1308, 1310, 1312, 1313)),
    ("zhipu", 400, zhipu(1302), LlmOverloaded),
    ("kimi", 400, kimi("content_filter", "The request was rejected because it was considered high risk"), BLOCKED),
    ("kimi", 400, kimi("invalid_request_error", "Your request exceeded model token limit: 8192"), ContextTooLong),
    ("kimi", 400, kimi("invalid_request_error"), LlmParameterRefused),
    ("kimi", 401, kimi("invalid_authentication_error"), LlmKeyRefused),
    ("kimi", 401, kimi("incorrect_api_key_error"), LlmKeyRefused),
    ("kimi", 403, kimi("permission_denied_error"), LlmMisconfigured),
    ("kimi", 403, kimi("exceeded_current_quota_error"), LlmUnpaid),
    ("kimi", 404, kimi("resource_not_found_error"), LlmMisconfigured),
    ("kimi", 429, kimi("exceeded_current_quota_error"), LlmUnpaid),
    ("kimi", 429, kimi("rate_limit_reached_error"), LlmOverloaded),
    ("kimi", 429, kimi("engine_overloaded_error"), LlmOverloaded),
    ("doubao", 400, openai("MissingParameter", "BadRequest"), LlmParameterRefused),
    ("doubao", 400, openai("InvalidParameter", "BadRequest"), LlmParameterRefused),
    ("doubao", 400, openai("InputTextRiskDetection", "BadRequest"), BLOCKED),
    ("doubao", 400, openai("OutputTextRiskDetection", "BadRequest"), BLOCKED),
    ("doubao", 400, openai("SensitiveContentDetected.SevereViolation", "BadRequest"), BLOCKED),
    ("doubao", 401, openai("AuthenticationError", "Unauthorized"), LlmKeyRefused),
    ("doubao", 403, openai("AccountOverdueError", "Forbidden"), LlmUnpaid),
    ("doubao", 404, openai("InvalidEndpointOrModel.NotFound", "NotFound"), LlmMisconfigured),
    ("doubao", 404, openai("ModelNotOpen", "NotFound"), LlmMisconfigured),
    ("doubao", 429, openai("RateLimitExceeded.EndpointTPMExceeded", "TooManyRequests"), LlmOverloaded),
    ("doubao", 429, openai("ServerOverloaded", "TooManyRequests"), LlmOverloaded),
    ("hunyuan", 429, openai("2003", "runtime_error"), LlmOverloaded),
    ("hunyuan", 401, openai("invalid_api_key", "invalid_request_error"), LlmKeyRefused),
    ("qianfan", 400, {**openai("malformed_json", "invalid_request_error"), "id": "as-1"}, LlmParameterRefused),
    ("qianfan", 400, openai("invalid_model", "invalid_request_error"), LlmMisconfigured),
    ("qianfan", 401, openai("invalid_model", "invalid_request_error"), LlmMisconfigured),
    ("qianfan", 400, openai("tokens_too_long"), ContextTooLong),
    ("qianfan", 400, openai("characters_too_long"), ContextTooLong),
    ("qianfan", 401, openai("invalid_iam_token", "access_denied"), LlmKeyRefused),
    ("qianfan", 400, openai("unsafe_request"), BLOCKED),
    ("qianfan", 429, openai("rpm_rate_limit_exceeded"), LlmOverloaded),
    ("qianfan", 429, openai("tpm_rate_limit_exceeded"), LlmOverloaded),
    ("qianfan", 200, {"code": "rpm_rate_limit_exceeded", "msg": said()}, LlmOverloaded),
    ("qianfan", 200, {"error_code": 18, "error_msg": said()}, LlmUnavailable),
    ("qianfan", 200, FLAGGED, BLOCKED),
    ("siliconflow", 400, siliconflow(20012), LlmMisconfigured),
    ("siliconflow", 400, siliconflow(20015), LlmParameterRefused),
    ("siliconflow", 503, siliconflow(50505), LlmOverloaded),
    ("siliconflow", 401, json.dumps("Invalid token"), LlmKeyRefused),
    ("siliconflow", 403, f"{said()}", LlmMisconfigured),
    ("siliconflow", 404, "404 page not found", LlmMisconfigured),
    ("siliconflow", 429, {"message": said(), "data": None}, LlmOverloaded),
    ("minimax", 200, minimax(1002), LlmOverloaded),
    ("minimax", 200, minimax(1004), LlmKeyRefused),
    ("minimax", 200, minimax(2049), LlmKeyRefused),
    ("minimax", 200, minimax(1008), LlmUnpaid),
    ("minimax", 200, minimax(1026), BLOCKED),
    ("minimax", 200, minimax(1027), BLOCKED),
    ("minimax", 200, minimax(1039), LlmOverloaded),
    ("minimax", 200, minimax(2013), LlmParameterRefused),
    ("minimax", 200, minimax(2013, "invalid params, context window exceeds limit"), ContextTooLong),
    ("minimax", 200, minimax(1000), LlmUnavailable),
    ("minimax", 200, minimax(9999), LlmUnavailable),
    ("minimax", 401, {"type": "error", "error": {"type": "authorized_error", "message": said()}}, LlmKeyRefused),
    ("minimax", 200, piece("what must not be shown", input_sensitive=True), BLOCKED),
    ("minimax", 200, piece("what must not be shown", output_sensitive=True, output_sensitive_type=1), BLOCKED),
    ("openrouter", 401, openrouter(401), LlmKeyRefused),
    ("openrouter", 402, openrouter(402), LlmUnpaid),
    ("openrouter", 403, openrouter(403, "flagged", reasons=["violence"], flagged_input=WORDS), BLOCKED),
    ("openrouter", 403, openrouter(403, "flagged", reasons=["violence"]), BLOCKED),
    ("openrouter", 403, openrouter(403, "Key limit exceeded (monthly limit)"), LlmMisconfigured),
    ("openrouter", 403, openrouter(403, reasons=[], flagged_input=None), LlmMisconfigured),
    ("openrouter", 403, {"error": {"code": 403, "message": said("Key limit exceeded")}}, LlmMisconfigured),
    ("openrouter", 200, openrouter(403, "flagged", reasons=["violence"]), BLOCKED),
    ("openrouter", 408, openrouter(408), LlmUnavailable),
    ("openrouter", 429, openrouter(429), LlmOverloaded),
    ("openrouter", 502, openrouter(502), LlmUnavailable),
    ("openrouter", 503, openrouter(503), LlmOverloaded),
    ("openrouter", 200, openrouter(402), LlmUnpaid),
    ("openrouter", 200, openrouter(429), LlmOverloaded),
    ("openrouter", 200, {**piece("", "error"), **openai("server_error")}, LlmUnavailable),
    ("groq", 413, openai("request_too_large"), ContextTooLong),
    ("groq", 422, openai("unprocessable"), LlmParameterRefused),
    ("groq", 424, openai("failed_dependency"), LlmUnavailable),
    ("groq", 429, openai("rate_limit_exceeded", "tokens"), LlmOverloaded),
    ("groq", 498, openai("capacity_exceeded"), LlmOverloaded),
    ("groq", 499, openai("request_cancelled"), LlmUnavailable),
    ("ollama", 404, openai(None, "api_error", 'model "x" not found, try pulling it first'), LlmMisconfigured),
    ("vllm", 400, vllm(400, TOO_LONG), ContextTooLong),
    ("vllm", 400, openai(400, "BadRequestError", TOO_LONG), ContextTooLong),
    ("vllm", 404, vllm(404), LlmMisconfigured),
    ("vllm", 200, vllm(400, TOO_LONG), ContextTooLong),
    ("vllm", 200, vllm(500), LlmUnavailable),
    ("vllm", 422, {"detail": [{"loc": ["body"], "msg": said()}]}, LlmParameterRefused),
    (
        "lmstudio",
        400,
        {"error": said("Trying to keep the first 9000 tokens when context length is 4096")},
        ContextTooLong,
    ),
    ("localai", 500, {"error": {"code": 500, "message": said(), "type": ""}}, LlmUnavailable),
    # Gateways: anything, worded as anybody would, or in words alone.
    ("openai_compatible", 500, openai("bad_response", "one_api_error"), LlmUnavailable),
    ("openai_compatible", 403, openai("insufficient_user_quota", "new_api_error"), LlmUnpaid),
    ("openai_compatible", 500, openai(None, "one_api_error", 'upstream: {"code":"Arrearage"}'), LlmUnpaid),
    ("openai_compatible", 400, openai(None, "new_api_error", "data_inspection_failed"), BLOCKED),
    ("openai_compatible", 429, openai(None, "upstream_error"), LlmOverloaded),
    ("openai_compatible", 400, zhipu(1113), LlmUnpaid),
    ("openai_compatible", 400, zhipu(1301), BLOCKED),
    ("openai_compatible", 200, minimax(1027), BLOCKED),
    ("openai_compatible", 200, FLAGGED, BLOCKED),
    ("openai_compatible", 200, {"code": "insufficient_quota", "message": said()}, LlmUnpaid),
    ("openai_compatible", 403, {"error": {"code": 403, "message": said()}}, LlmMisconfigured),
    ("openai_compatible", 403, openrouter(403, "flagged", flagged_input=WORDS), BLOCKED),
    ("openai_compatible", 400, {"msg": said(TOO_LONG)}, ContextTooLong),
    ("openai_compatible", 400, {"header": {"message": said(TOO_LONG)}}, ContextTooLong),
    ("openai_compatible", 400, {"response": {"error": {"message": said(TOO_LONG)}}}, ContextTooLong),
    ("openai_compatible", 400, json.dumps(said(TOO_LONG)), ContextTooLong),
    ("openai_compatible", 400, said(TOO_LONG), ContextTooLong),
    ("openai_compatible", 502, HTML, LlmUnavailable),
    ("openai_compatible", 503, HTML, LlmOverloaded),
    ("openai_compatible", 404, HTML, LlmMisconfigured),
    ("openai_compatible", 405, "", LlmMisconfigured),
    ("openai_compatible", 529, "", LlmOverloaded),
    ("openai_compatible", 408, "", LlmUnavailable),
    ("openai_compatible", 409, "", LlmUnavailable),
    ("openai_compatible", 504, "", LlmUnavailable),
    ("openai_compatible", 500, [[[said()]]], LlmUnavailable),
    ("openai_compatible", 400, {"error": {"error": {"error": said()}}}, LlmParameterRefused),
]


@dataclass
class Refused:
    outcome: Outcome | None
    text: str
    error: ChatAssistError | None
    calls: int


async def refused(vendor: LoopbackVendor, kind: str, behaviour: Behaviour) -> Refused:
    """What a model makes of a refusal: never more than one call, and never a word that came with it."""
    vendor.script = behaviour
    model = OpenAiCompatibleChatModel(calling(vendor.base_url, KEY, kind), model="m", idle_timeout=5)
    heard = await hear(model, asking(WORDS))
    await model.aclose()
    told = f"{heard.error} {heard.error and heard.error.__cause__}"
    assert not [secret for secret in (KEY, WORDS, "?", "127.0.0.1") if secret in told]
    assert len(vendor.requests) == 1
    return Refused(type(heard.error) if heard.error else heard.finish, heard.text, heard.error, len(vendor.requests))


def refusing(status: int, body: object, headers: Mapping[str, str] | None = None) -> Behaviour:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, str) else "application/json"
    return sends(content, status=status, content_type=kind, headers=headers or {})


@pytest.mark.parametrize(("kind", "status", "body", "expected"), TABLE)
async def test_each_refusal_is_what_its_vendor_means_by_it(
    vendor: LoopbackVendor, kind: str, status: int, body: object, expected: Outcome
) -> None:
    found = await refused(vendor, kind, refusing(status, body))

    assert (found.outcome, found.text) == (expected, "")
    if isinstance(found.error, LlmUnpaid | LlmMisconfigured | ContextTooLong):
        assert found.error.retry_after is None, "it would be refused again"


@pytest.mark.parametrize(
    ("kind", "body", "expected"), [(kind, body, expected) for kind, status, body, expected in TABLE if status == 200]
)
async def test_each_refusal_within_200_is_found_amid_a_stream(
    vendor: LoopbackVendor, kind: str, body: object, expected: Outcome
) -> None:
    found = await refused(vendor, kind, sends(event(piece("so far")) + event(body)))

    assert (found.outcome, found.text) == (expected, "so far")


@pytest.mark.parametrize(("kind", "status"), [("azure", 429), ("openai", 429), ("deepseek", 503), ("groq", 498)])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "86400"}, 120.0),
        ({"Retry-After": "soon"}, LlmOverloaded.retry_after),
        ({"Retry-After": DATE.replace("12:00:00", "12:00:30")}, 30.0),
        ({}, LlmOverloaded.retry_after),
    ],
)
async def test_whoever_is_overloaded_says_when_to_come_back(
    vendor: LoopbackVendor, kind: str, status: int, headers: Mapping[str, str], seconds: float
) -> None:
    found = await refused(vendor, kind, refusing(status, openai(), headers))

    assert found.outcome is LlmOverloaded
    assert found.error
    assert found.error.retry_after == pytest.approx(seconds)


async def test_a_connection_that_deepseek_closes_before_it_began_is_unavailable(vendor: LoopbackVendor) -> None:
    assert (await refused(vendor, "deepseek", resets())).outcome is LlmUnavailable


@pytest.mark.parametrize("flag", [0, 1, 2, None, [3], "3"])
async def test_a_flag_that_lets_a_text_be_shown_is_no_refusal(vendor: LoopbackVendor, flag: object) -> None:
    """Qianfan: 0 is safe, 1 a low risk, 2 may be shown; anything else than a number says nothing."""
    shown = piece("shown", "stop")
    shown["choices"][0] |= {"flag": flag, "ban_round": 0}

    found = await refused(vendor, "qianfan", sends(event(shown)))

    assert (found.outcome, found.text) == (FinishReason.STOP, "shown")


@pytest.mark.parametrize(
    "late", [piece(choices=[], output_sensitive=True), minimax(1027), {"object": "chat.completion", **minimax(1026)}]
)
async def test_what_turns_out_unsafe_after_its_end_is_withdrawn_all_the_same(
    vendor: LoopbackVendor, late: object
) -> None:
    found = await refused(vendor, "minimax", sends(event(piece("shown", "stop")) + event(late)))

    assert (found.outcome, found.text) == (BLOCKED, "shown")


async def test_any_other_refusal_after_the_end_is_too_late(vendor: LoopbackVendor) -> None:
    found = await refused(vendor, "minimax", sends(event(piece("shown", "stop")) + event(minimax(1002))))

    assert (found.outcome, found.text) == (FinishReason.STOP, "shown")
