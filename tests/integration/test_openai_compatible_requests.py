"""What a request to each kind of vendor holds: its key, its parameters, and the same conversation as everywhere."""

from dataclasses import replace
from typing import Any

import pytest

from chatassist.adapters.llm.openai_compatible import OpenAiCompatibleChatModel, Options
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_behaviours import Received
from tests.integration.calling import calling
from tests.integration.heard import asking, hear

KEY = "sk-very-secret"
NEEDED = {"model", "messages", "stream"}


async def request_of(vendor: LoopbackVendor, kind: str, *, key: str = KEY, path: str = "", **options: Any) -> Received:
    """What a vendor of this kind is sent."""
    access = calling(vendor.base_url + path, key, kind)
    model = OpenAiCompatibleChatModel(access, model="m", idle_timeout=5, options=Options(**options))
    assert (await hear(model, asking("one", "two", "three"))).error is None
    await model.aclose()
    return vendor.requests[0]


@pytest.mark.parametrize(
    ("kind", "key", "shown"),
    [
        ("deepseek", KEY, {"authorization": f"Bearer {KEY}"}),
        ("openai_compatible", KEY, {"authorization": f"Bearer {KEY}"}),
        ("ollama", KEY, {"authorization": f"Bearer {KEY}"}),
        ("ollama", "", {}),
        ("openai_compatible", "", {}),
        ("azure", KEY, {"api-key": KEY}),
    ],
)
async def test_a_key_is_shown_once_and_as_the_vendor_wants_it(
    vendor: LoopbackVendor, kind: str, key: str, shown: dict[str, str]
) -> None:
    request = await request_of(vendor, kind, key=key)

    assert {name: request.headers[name] for name in ("authorization", "api-key") if name in request.headers} == shown


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/openai/deployments/d", "/v1/openai/deployments/d/chat/completions?api-version=2024-10-21"),
        ("/openai/v1", "/v1/openai/v1/chat/completions"),
    ],
)
async def test_azures_version_goes_with_deployments_alone(vendor: LoopbackVendor, path: str, asked: str) -> None:
    assert (await request_of(vendor, "azure", path=path)).path == asked


@pytest.mark.parametrize(
    ("kind", "given", "sent"),
    [
        ("openai", {"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        ("azure", {"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        ("deepseek", {"max_output_tokens": 9}, {"max_tokens": 9}),
        ("openai", {"temperature": 1.7}, {"temperature": 1.7}),
        ("kimi", {"temperature": 1.7}, {"temperature": 1.0}),
        ("zhipu", {"temperature": 1.7}, {"temperature": 0.99}),
        ("zhipu", {"temperature": 0.0}, {"temperature": 0.01}),
        ("minimax", {"temperature": 0.0}, {"temperature": 0.01, "reasoning_split": True}),
        ("minimax", {"temperature": 1.7}, {"temperature": 1.0, "reasoning_split": True}),
        ("minimax", {}, {"reasoning_split": True}),
        ("deepseek", {"thinking": None}, {}),
        ("deepseek", {"thinking": True}, {"thinking": {"type": "enabled"}}),
        ("zhipu", {"thinking": False}, {"thinking": {"type": "disabled"}}),
        ("kimi", {"thinking": False}, {"thinking": {"type": "disabled"}}),
        ("doubao", {"thinking": False}, {"thinking": {"type": "disabled"}}),
        ("qwen", {"thinking": True}, {"enable_thinking": True}),
        ("qwen", {"thinking": False}, {"enable_thinking": False}),
        ("siliconflow", {"thinking": False}, {"enable_thinking": False}),
        ("vllm", {"thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("openai", {"thinking": False}, {"reasoning_effort": "none"}),
        ("openrouter", {"thinking": False}, {"reasoning": {"enabled": False}}),
        ("groq", {"thinking": True}, {}),
        ("groq", {"thinking": False}, {"reasoning_effort": "none"}),
        ("openai_compatible", {"thinking": False}, {}),
        ("hunyuan", {"thinking": True}, {}),
    ],
)
async def test_what_may_be_given_is_called_and_bounded_as_the_vendor_wants_it(
    vendor: LoopbackVendor, kind: str, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    body = (await request_of(vendor, kind, **given)).body

    assert {name: value for name, value in body.items() if name not in NEEDED} == {
        "stream_options": {"include_usage": True},
        **sent,
    }


async def test_what_a_vendor_does_not_take_is_not_sent(vendor: LoopbackVendor) -> None:
    access = calling(vendor.base_url)
    least = replace(access, vendor=replace(access.vendor, counts_usage=False, limit_parameter=None))
    model = OpenAiCompatibleChatModel(least, model="m", idle_timeout=5, options=Options(max_output_tokens=9))

    await hear(model)
    await model.aclose()

    assert set(vendor.requests[0].body) == NEEDED
