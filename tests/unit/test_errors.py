"""The error tree: slugs are names that clients and rows keep, so they are unique and can be looked up."""

import re

import pytest

from chatassist.domain import errors
from chatassist.domain.errors import ChatAssistError, Internal, Limited, leaves, named

OURS = [kind for kind in leaves() if kind.__module__ == errors.__name__]


def test_slugs_are_unique_and_made_of_small_words() -> None:
    slugs = [kind.slug for kind in OURS]

    assert len(slugs) == len(set(slugs)) > 25
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", slug) for slug in slugs)


def test_every_error_of_the_tree_says_what_it_means() -> None:
    everything = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]

    assert set(OURS) < set(everything)
    assert [kind.__name__ for kind in everything if not (kind.__doc__ or "").strip()] == []


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.slug)
def test_a_slug_finds_its_class(kind: type[ChatAssistError]) -> None:
    assert named(kind.slug) is kind


@pytest.mark.parametrize("slug", [None, "", "of_a_later_version", "LLM_TIMEOUT"])
def test_an_unknown_slug_is_internal(slug: str | None) -> None:
    assert named(slug) is Internal


def test_an_error_says_its_slug_or_what_an_operator_should_know() -> None:
    assert str(errors.LlmTimeout()) == "llm_timeout"
    assert str(errors.LlmTimeout("idle for 30 s")) == "idle for 30 s"


def test_a_retry_is_timed_by_the_class_unless_the_occasion_knows_better() -> None:
    assert errors.LlmOverloaded().retry_after == 5.0
    assert errors.LlmOverloaded(retry_after=17).retry_after == 17
    assert errors.LlmOverloaded(retry_after=0).retry_after == 0
    assert errors.LlmOverloaded().retry_after == 5.0  # the class kept its own
    assert errors.LlmMisconfigured().retry_after is None


def test_every_limit_of_ours_tells_when_to_come_back() -> None:
    limits = [kind for kind in OURS if issubclass(kind, Limited)]

    assert limits
    assert all(kind().retry_after for kind in limits)
