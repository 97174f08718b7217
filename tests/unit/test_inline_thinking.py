"""Reasoning written into an answer: taken out of its beginning, however it is cut, and nowhere else."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatassist.adapters.llm.inline_thinking import InlineThinking

CASES = {
    # an answer: (text, thinking)
    "hello": ("hello", ""),
    "\n\n hello \n": ("hello \n", ""),
    "<think>hm</think>hello": ("hello", "hm"),
    "\n <think>\nhm\n</think>\n\nhello": ("hello", "hm\n"),
    "<THINK>hm</Think>hello": ("hello", "hm"),
    "<thinking>hm</thinking>hello": ("hello", "hm"),
    "<thought>hm</thought>hello": ("hello", "hm"),
    "<reasoning>hm</reasoning>hello": ("hello", "hm"),
    "<think>one</think> \n <thought>two</thought>three<think>four</think>": ("three<think>four</think>", "onetwo"),
    "<think></think>hello": ("hello", ""),
    "<think>\n\n</think>\n\nhello": ("hello", ""),
    "<think>it never ends": ("", "it never ends"),
    "<think>nor </thi": ("", "nor </thi"),
    "<think>a < b </b> <think> </thinking> c</think>d": ("d", "a < b </b> <think> </thinking> c"),
    "<think>hm</think>": ("", "hm"),
    "<seed:think>hm</think>hm</seed:think>hello": ("hello", "hm</think>hm"),
    "<think >hm</think>hello": ("hello", "hm"),
    "<think\n>hm</think>hello": ("hello", "hm"),
    "<Think type=\"x\" lang='y'>hm</think>hello": ("hello", "hm"),
    "\ufeff<think>hm</think>\u200bhello": ("hello", "hm"),
    "\u200b \ufeff<think>hm</think>hello": ("hello", "hm"),
    f"<think {'x' * 120}>hm</think>hello": ("hello", "hm"),
    "\u200b\ufeff ": ("", ""),
    # what only looks like it
    f"<think {'x' * 121}>hm</think>hello": (f"<think {'x' * 121}>hm</think>hello", ""),
    "<think <b>hm</think>": ("<think <b>hm</think>", ""),
    "<think/>hello": ("<think/>hello", ""),
    "<think />hello": ("<think />hello", ""),
    "<think-aloud>hello": ("<think-aloud>hello", ""),
    "<seeds:think>hello": ("<seeds:think>hello", ""),
    "\ufeff<html>": ("<html>", ""),
    "<thi": ("<thi", ""),
    "<thin air>": ("<thin air>", ""),
    "<thinkers> and <think>": ("<thinkers> and <think>", ""),
    "<html>": ("<html>", ""),
    "a <think>hm</think> b": ("a <think>hm</think> b", ""),
    "`<think>` is a tag": ("`<think>` is a tag", ""),
    "</think>hello": ("</think>hello", ""),
    "<think hard": ("<think hard", ""),
    "": ("", ""),
    " \n ": ("", ""),
}


def apart(*pieces: str) -> tuple[str, str]:
    inline = InlineThinking()
    found = [inline.feed(piece) for piece in pieces]
    found.append(inline.end())
    return "".join(text for text, _ in found), "".join(thinking for _, thinking in found)


@pytest.mark.parametrize(("answer", "expected"), CASES.items(), ids=repr)
def test_of_an_answer_its_beginning_is_thinking_if_it_says_so(answer: str, expected: tuple[str, str]) -> None:
    assert apart(answer) == expected
    assert apart(*answer) == expected


OPENING = r"(?=<[^<>]{1,126}>)<(think|thinking|thought|reasoning|seed:think)(?:\s[^>]*)?(?<!/)>"
BLANKS = r"[\s\ufeff\u200b]*"
LEADING = re.compile(rf"{BLANKS}(?:{OPENING}.*?</\1>{BLANKS})*", re.IGNORECASE | re.ASCII | re.DOTALL)


def rest_of(answer: str) -> str:
    """What is text, told by one pattern over the whole."""
    leading = LEADING.match(answer)
    assert leading
    rest = answer[leading.end() :]
    return "" if re.match(OPENING, rest, re.IGNORECASE | re.ASCII) else rest


PARTS = st.sampled_from(
    [
        *("<think>", "</think>", "<Thinking>", "</thinking>", "<seed:", "</seed:", "<", "</", "think", ">", "/"),
        *(" ", "\n", "a", "汉", "İ", "ſ", "\u212a", "\ufeff", "\u200b", "=" * 60),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS).map("".join), st.lists(st.integers(0, 80)))
@example("<thin\u212a>no</think>", [5])
def test_it_is_the_same_however_it_is_cut(answer: str, places: list[int]) -> None:
    borders = [0, *sorted(place for place in places if place < len(answer)), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(borders)]

    text, thinking = apart(*pieces)

    assert (text, thinking) == apart(answer)
    assert text == rest_of(answer)


def test_once_text_has_begun_nothing_need_be_fed() -> None:
    inline = InlineThinking()
    assert inline.feed("<think>hm") == ("", "hm")
    assert not inline.over
    assert inline.feed("</think>\n") == ("", "")
    assert not inline.over
    assert inline.feed("h") == ("h", "")
    assert inline.over


def test_thinking_comes_as_it_is_thought_and_all_but_a_tag_at_once() -> None:
    inline = InlineThinking()
    assert [inline.feed(piece) for piece in ("<thi", "nk>a", "b<", "c</thin", "k>d")] == [
        ("", ""),
        ("", "a"),
        ("", "b"),
        ("", "<c"),
        ("d", ""),
    ]


@pytest.mark.parametrize(
    "hopeless", ["<thin\u212a", "<thinks", "<b", "<think <", "<think/", "</", f"<think {'x' * 121}"]
)
def test_what_cannot_become_a_tag_any_more_is_text_at_once(hopeless: str) -> None:
    assert InlineThinking().feed(hopeless) == (hopeless, "")


@pytest.mark.parametrize("hopeful", ["<", "<THIN", "<think", "<think ", "<think a=b", "<seed:", f"<think {'x' * 120}"])
def test_what_may_become_a_tag_waits_for_its_end(hopeful: str) -> None:
    inline = InlineThinking()
    assert inline.feed(hopeful) == ("", "")
    assert inline.end() == (hopeful, "")
