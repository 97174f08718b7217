"""Sorting refusals: the shapes of their bodies, and how long they ask us to wait."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatassist.adapters.catalogue import CATALOGUE, OPENAI_COMPATIBLE
from chatassist.adapters.vendor_errors import Kind, retry_after

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "type", "message", "msg", "base_resp", "status_code", "object"]), inner
        )
    ),
    max_leaves=12,
)
COMMON = OPENAI_COMPATIBLE.refusals
TOO_LONG = "This model's maximum context length is 4096 tokens"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": TOO_LONG}},
        {"error": TOO_LONG},
        {"message": TOO_LONG},
        {"msg": TOO_LONG},
        {"err": TOO_LONG},
        {"error_msg": TOO_LONG},
        {"header": {"message": TOO_LONG}},
        {"response": {"error": {"message": TOO_LONG}}},
        {"base_resp": {"status_msg": TOO_LONG}},
        [{"error": {"message": TOO_LONG}}],
        TOO_LONG,
    ],
)
def test_the_sentence_is_found_wherever_a_vendor_or_gateway_puts_it(body: object) -> None:
    assert COMMON.of(400, json.dumps(body).encode(), {}).kind is Kind.TOO_LONG


def test_a_rate_limit_that_speaks_of_tokens_is_no_long_prompt() -> None:
    body = b'{"error": {"message": "token limit per minute reached"}}'
    assert COMMON.of(429, body, {}).kind is Kind.RATE


def test_one_number_means_what_its_vendor_means_by_it() -> None:
    body = b'{"error": {"code": "1002", "message": "x"}}'
    assert CATALOGUE["zhipu"].refusals.of(400, body, {}).kind is Kind.AUTH
    assert CATALOGUE["minimax"].refusals.of(400, body, {}).kind is Kind.RATE
    assert COMMON.of(400, body, {}).kind is Kind.PARAMETER, "who may be either is asked for the status"
    assert COMMON.of(401, body, {}).kind is Kind.AUTH


@settings(max_examples=40, deadline=None)
@given(st.integers(300, 599), st.binary() | JSON.map(lambda made: json.dumps(made).encode()))
def test_any_body_is_sorted(status: int, body: bytes) -> None:
    assert str(COMMON.of(status, body, {})).startswith(f"HTTP {status}: ")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["error", "code", "message", "base_resp", "choices", "object"]), JSON))
def test_any_document_is_sorted_or_none(document: dict[str, object]) -> None:
    refused = COMMON.within(document)
    assert refused is not None or not document.get("error")


@pytest.mark.parametrize("body", [b"[" * 100_000, b"9" * 10_000, b'{"error":' * 900 + b"1" + b"}" * 900])
def test_a_body_made_to_break_parsers_is_sorted(body: bytes) -> None:
    assert COMMON.of(500, body, {}).kind is Kind.FAULT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "121"}, 120.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_a_wait_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text())
def test_a_wait_that_is_garbage_is_no_wait(value: str, date: str) -> None:
    wait = retry_after({"retry-after": value, "date": date})
    assert wait is None or 0 <= wait <= 120
