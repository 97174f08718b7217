"""Reading a vendor's answer: bytes in, chunks out, no connection."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatassist.adapters.catalogue import CATALOGUE, OPENAI_COMPATIBLE
from chatassist.adapters.llm.reply_reader import ReplyReader
from chatassist.domain.errors import LlmUnavailable
from chatassist.domain.model import is_clean
from chatassist.domain.ports.llm import Chunk
from chatassist.domain.turns import FinishReason, Usage
from tests.fixtures.vendor_behaviours import DONE, cut, event, piece, stream_of, usage

STOP = event(piece(finish="stop"))


def read(*parts: bytes, max_body: int = 1_000_000, kind: str = "openai_compatible") -> list[Chunk]:
    reply = ReplyReader(CATALOGUE[kind], model="asked", max_body=max_body)
    chunks = [chunk for part in parts for chunk in reply.feed(part)]
    return [*chunks, *reply.end(), reply.last()]


def text_of(*parts: bytes) -> str:
    return "".join(chunk.text for chunk in read(*parts))


def a_choice(**fields: Any) -> bytes:
    return event({"choices": [fields]})


@settings(max_examples=30, deadline=None)
@given(st.text(), st.lists(st.integers(0, 400)), st.lists(st.integers(0, 4000)), st.booleans())
@example("👩‍👩‍👧𠮷", [1, 2, 3, 4], [], True)
def test_text_cut_anywhere_by_vendor_and_network_arrives_clean_and_whole(
    text: str, halves: list[int], cuts: list[int], escaped: bool
) -> None:
    """Vendors cut between UTF-16 halves, which JSON escapes (or CESU-8) can carry; the network between any bytes."""
    text = "_" + text  # leading whitespace is dropped
    half_units = text.encode("utf-16-le")
    pieces = [
        part.decode("utf-16-le", "surrogatepass")
        for part in cut(half_units, *(place * 2 for place in halves if place * 2 < len(half_units)))
    ]
    events = [
        b"data: %s\r\n\r\n" % json.dumps(piece(one), ensure_ascii=escaped).encode("utf-8", "surrogatepass")
        for one in pieces
    ]
    body = b"".join(events) + STOP + DONE

    chunks = read(*cut(body, *(place for place in cuts if place < len(body))))

    assert "".join(chunk.text for chunk in chunks) == "".join(char for char in text if is_clean(char))
    assert all(is_clean(chunk.text) for chunk in chunks)
    assert all(chunk.text for chunk in chunks[:-1])


@pytest.mark.parametrize(
    "body",
    [
        stream_of("a", "b"),
        stream_of("a", "b").replace(b"data: ", b"data:"),
        stream_of("a", "b").replace(b"\n", b"\r\n"),
        stream_of("a", "b").replace(b"\n\n", b"\n"),
        b"\xef\xbb\xbf" + stream_of("a", "b"),
        b": keep-alive\n\n" + stream_of("a", "b").replace(b"data", b": OPENROUTER PROCESSING\nevent: x\nid: 1\ndata"),
        stream_of("a", "b").removesuffix(DONE),
        stream_of("a", "b").removesuffix(DONE).rstrip(b"\n"),
        stream_of("a", "b").removesuffix(b"\n\n"),
        stream_of("a", "b", counted=False).removesuffix(DONE),
        stream_of("a", "b", finish=None),
        stream_of("", "a", "", "b"),
        stream_of("\n", " ", "a", "b"),
        stream_of("\n", "\n a", "b"),
        event(piece("", obfuscation="xyz")) + stream_of("a", "b"),
        a_choice(delta={"role": "assistant", "content": "a"})
        + a_choice(delta={"role": "assistant", "content": "b"})
        + STOP,
        b'data: {\ndata: "choices": [{"delta": {"content": "ab"}}]}\n\n' + STOP,
        event({"choices": []}) + event({"choices": None}) + event({}) + b"data:\n\n" + stream_of("a", "b"),
        a_choice(delta=None) + a_choice(delta={"role": "assistant", "content": None}) + stream_of("a", "b"),
        event({"choices": ["odd"]}) + event([1]) + event("odd") + event(None) + stream_of("a", "b"),
        a_choice(delta={"reasoning_content": "hm", "reasoning": "hm", "content": ""}) + stream_of("a", "b"),
        a_choice(delta={"content": ["odd"]}, finish_reason=7) + stream_of("a", "b"),
        a_choice(delta={"content": "ab"}, finish_reason="") + a_choice(delta={}, finish_reason="null") + DONE,
        a_choice(delta={"content": "ab"}, finish_reason="stop"),
        stream_of("a", "b") + event({"error": "too late"}) + b"data: {broken\n\n" + event(piece("more")),
        stream_of("a", "b").removesuffix(DONE) + event(piece("more")) + event({"error": "x"}) + b"data: {cut",
        event(piece("ab", error=None)) + STOP,
        event(piece("ab")) + a_choice(message={"content": "ab"}, finish_reason="stop"),
        event(piece("ab", "stop")) + a_choice(message={"content": "ab"}, finish_reason="stop"),
        b'\n\n {"choices": [{"message":\n{"content": "ab"}, "finish_reason": "stop"}]}\n',
        b'{"choices": [{"message": {"content": "ab"}, "finish_reason": null}]}',
        b'data: {"choices": [{"message": {"content": "ab"}, "finish_reason": "stop"}]}\n\n',
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_whatever_form_it_takes_a_whole_answer_is_one(body: bytes, bytewise: bool) -> None:
    chunks = read(*cut(body, *range(1, len(body)))) if bytewise else read(body)

    assert "".join(chunk.text for chunk in chunks) == "ab"
    assert [chunk.finish_reason for chunk in chunks][-2:] == [None, FinishReason.STOP]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n\n",
        DONE,
        b"<html>\n<body>data: x</body></html>",
        b"plain words",
        b"{",
        b"[]",
        b"{}",
        b'"Invalid token"',
        b'data: {"choices"\n\n',
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: " + b"9" * 10_000 + b"\n\n",
        event(piece("so far")),
        event(piece("so far")) + b"data: {broken}\n\n" + STOP,
        event(piece(finish="strange")),
        event(piece("so far", finish="error")),
        event(piece("so far")) + event(piece(finish="network_error")) + DONE,
        event(piece("so far")) + event(piece(finish="insufficient_system_resource")) + DONE,
    ],
)
def test_anything_else_is_unavailable(body: bytes) -> None:
    with pytest.raises(LlmUnavailable):
        read(body)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", FinishReason.STOP),
        ("tool_calls", FinishReason.STOP),
        ("function_call", FinishReason.STOP),
        ("strange", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("content_filter", FinishReason.BLOCKED),
        ("sensitive", FinishReason.BLOCKED),
    ],
)
def test_finish_reasons_become_ours(reason: str, expected: FinishReason) -> None:
    assert read(event(piece("a", finish=reason)))[-1].finish_reason is expected


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
@pytest.mark.parametrize(
    "said", [b"", event(piece(" \n")) + event(piece("\n\u200b\ufeff")), event(piece("<think>hm</think> "))]
)
def test_an_answer_that_is_finished_and_empty_is_none(reason: str, said: bytes) -> None:
    with pytest.raises(LlmUnavailable, match="answered nothing"):
        read(said + event(piece(finish=reason)) + event(usage(3, 0)) + DONE)
    with pytest.raises(LlmUnavailable, match="answered nothing"):
        read(a_choice(message={"content": " "}, finish_reason=reason))


@pytest.mark.parametrize(
    ("reason", "expected"), [("length", FinishReason.LENGTH), ("content_filter", FinishReason.BLOCKED)]
)
def test_an_answer_that_was_cut_or_blocked_may_be_empty(reason: str, expected: FinishReason) -> None:
    assert read(event(piece(finish=reason)) + DONE)[-1].finish_reason is expected


COUNTS = {"prompt_tokens": 3, "completion_tokens": 4}


@pytest.mark.parametrize(
    "body",
    [
        STOP + event({"choices": [], "usage": COUNTS}),
        event(piece(finish="stop", usage=COUNTS)),
        a_choice(delta={}, finish_reason="stop", usage=COUNTS),
        STOP + event({"choices": [], "x_groq": {"usage": COUNTS}}) + DONE,
        event(piece(usage={"prompt_tokens": 3, "completion_tokens": 1})) + event(piece(finish="stop", usage=COUNTS)),
        event(usage(3, 4)) + event(piece(finish="stop", usage=None)),
        event(usage(3, 4)) + STOP + event({"choices": [], "usage": {"prompt_tokens": "x", "completion_tokens": 1}}),
        event(usage(3, 4)) + STOP + event({"usage": {"prompt_tokens": -1, "completion_tokens": 2}, "x_groq": 1}),
        event(usage(3, 4)) + STOP + event({"usage": {"prompt_tokens": True, "completion_tokens": 2}}),
        event(usage(3, 4)) + STOP + event(usage(0, 0)),
        event(usage(3, 4)) + STOP + event({"usage": {"prompt_tokens": 1, "completion_tokens": 10**30}}),
    ],
)
def test_usage_is_taken_wherever_it_is_and_the_last_good_one_holds(body: bytes) -> None:
    assert read(event(piece("a")) + body)[-1].usage == Usage(input_tokens=3, output_tokens=4)


def test_counts_of_nothing_are_none_at_all() -> None:
    """Servers that do not count send zeros; what is unknown is estimated elsewhere."""
    assert read(event(piece("a", "stop")) + event(usage(0, 0)) + DONE)[-1].usage is None


@pytest.mark.parametrize("named", [None, "", 7, "x" * 129, "a\x00b", "\ud800"])
def test_the_model_asked_for_stands_in_for_a_name_that_cannot_be_kept(named: object) -> None:
    assert read(event(piece("a", finish="stop", model=named)))[-1].model == "asked"


def test_half_a_character_that_never_becomes_whole_is_replaced() -> None:
    assert text_of(event(piece("a\ud83d")), STOP) == "a\ufffd"
    assert text_of(event(piece("a\ud83d")), event(piece("b\ude00c")), STOP) == "a\ufffdb\ufffdc"


def test_control_characters_are_dropped_but_tab_and_newline() -> None:
    assert text_of(event(piece("a\x00\r\n\tb\x1b\x7f\x85c")), STOP) == "a\n\tbc"


def test_an_endless_answer_ends() -> None:
    with pytest.raises(LlmUnavailable):
        read(*[event(piece("more"))] * 100, max_body=5_000)


@pytest.mark.parametrize("part", [b"x" * 500, b"data: x\n" * 50, b"{" + b" " * 499])
def test_an_endless_event_ends_long_before_the_body_does(part: bytes) -> None:
    reply = ReplyReader(OPENAI_COMPATIBLE, model="asked", max_body=100_000_000)

    def flood() -> int:
        return sum(len(list(reply.feed(part))) for _ in range(3_000))

    with pytest.raises(LlmUnavailable, match="too large"):
        flood()


def test_an_endless_event_after_the_finish_reason_leaves_the_reply_as_it_is() -> None:
    reply = ReplyReader(OPENAI_COMPATIBLE, model="asked", max_body=100_000_000)
    list(reply.feed(event(piece("all", finish="stop"))))
    with pytest.raises(LlmUnavailable):
        list(reply.feed(b"data: " + b"x" * 2_000_000))

    assert list(reply.end()) == []
    assert reply.last().finish_reason is FinishReason.STOP


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_what_the_model_thinks_comes_apart_from_what_it_says(field: str) -> None:
    """Cut anywhere, cleaned as text is, once even where a vendor sends it under two names, and alone no answer."""
    both = {"reasoning_content": "\ud83d", "reasoning": "\ud83d"}
    body = a_choice(delta={field: "hm "}) + a_choice(delta=both) + a_choice(delta={field: "\ude00\x07"})
    chunks = read(*cut(body + stream_of("a", "b"), *range(1, len(body))))

    assert thinking_of(chunks) == "hm 😀"
    assert "".join(chunk.text for chunk in chunks) == "ab"
    with pytest.raises(LlmUnavailable):
        read(body + DONE)


def thinking_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.thinking for chunk in chunks)


THOUGHTS = [
    ("minimax", [{"type": "reasoning.text", "text": "h"}, {"text": "m"}]),
    ("openrouter", [{"type": "reasoning.summary", "summary": "hm"}, {"type": "reasoning.encrypted", "data": "x"}]),
    ("openai_compatible", [None, "odd", {"text": ["odd"]}, {"text": "hm"}]),
]


@pytest.mark.parametrize(("kind", "details"), THOUGHTS)
def test_thoughts_in_parts_are_joined(kind: str, details: object) -> None:
    chunks = read(a_choice(delta={"reasoning_details": details}) + stream_of("ab"), kind=kind)

    assert (thinking_of(chunks), "".join(chunk.text for chunk in chunks)) == ("hm", "ab")


@pytest.mark.parametrize("odd", [7, True, {"text": "x"}, [], ["x"], [[]]])
def test_thoughts_of_no_known_shape_are_none(odd: object) -> None:
    assert thinking_of(read(a_choice(delta={"reasoning_details": odd, "content": "ab"}) + STOP)) == ""


@pytest.mark.parametrize(
    "body",
    [
        stream_of("<think>hm</think>ab"),
        stream_of("\n<Think>", "h", "m", "</THINK>\n\n", "a", "b"),
        b'{"choices": [{"message": {"content": "<think>hm</think>ab"}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": "ab", "reasoning_content": "hm"}, "finish_reason": "stop"}]}',
        a_choice(delta={"reasoning_content": "h"}) + stream_of("<think>m</think>", "ab"),
    ],
)
def test_inline_thinking_is_cut_out_wherever_the_network_cuts(body: bytes) -> None:
    for chunks in (read(body), read(*cut(body, *range(1, len(body))))):
        assert (thinking_of(chunks), "".join(chunk.text for chunk in chunks)) == ("hm", "ab")
        assert chunks[-1].finish_reason is FinishReason.STOP


@pytest.mark.parametrize(
    "thought",
    [a_choice(delta={"reasoning_content": "hm"}), event(piece("<think>hm")), event(piece("<think>h</t", "length"))],
)
def test_an_answer_that_thinking_has_eaten_has_no_text_and_is_cut_by_length(thought: bytes) -> None:
    again = a_choice(message={"content": "", "reasoning_content": "hm"}, finish_reason="length")

    chunks = read(thought + event(piece(finish="length")) + again + DONE)

    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert "".join(chunk.text for chunk in chunks) == ""
    assert thinking_of(chunks) in ("hm", "h</t"), "and once"


def test_an_answer_that_thinks_to_its_end_and_is_said_once_more_whole_thinks_once() -> None:
    """MiniMax ends with the whole message."""
    again = a_choice(message={"content": "", "reasoning_content": "hm"}, finish_reason="length")

    assert thinking_of(read(a_choice(delta={"reasoning_content": "hm"}) + again)) == "hm"


def test_a_null_finish_reason_is_no_end_where_all_was_thought() -> None:
    with pytest.raises(LlmUnavailable):
        read(event(piece("<think>hm")) + DONE)


def test_what_looks_like_thinking_and_ends_is_text() -> None:
    assert text_of(event(piece("<th", "stop"))) == "<th"
    assert text_of(event(piece("<th")) + DONE) == "<th"
