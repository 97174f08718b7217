"""The one table from errors to answers has a row for everything that can go wrong."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from chatassist.domain.errors import ChatAssistError, Internal, LlmOverloaded, TooManySends, leaves
from chatassist.domain.ports.people import Taken
from chatassist.domain.turns import End
from chatassist.entrypoints.http.envelope import SENTENCES, STATUS, InvalidRequest, TurnFailed, refuse, status_of
from tests.builders import NOW, a_session, a_turn, a_user

DOCUMENTED = {400, 401, 403, 404, 429, 500}
LEAVES = list(leaves())


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.slug)
def test_every_error_has_a_documented_status_and_a_chinese_sentence(kind: type[ChatAssistError]) -> None:
    outside_the_table = {"method_not_allowed": {405}}
    assert status_of(kind) in outside_the_table.get(kind.slug, DOCUMENTED)
    assert any(base in STATUS for base in kind.__mro__), "a family that the table knows"
    assert re.search(r"[\u4e00-\u9fff]", SENTENCES[kind.slug])


def test_no_sentence_is_left_over() -> None:
    assert set(SENTENCES) == {kind.slug for kind in LEAVES}


def test_every_limit_and_no_input_error_says_when_to_retry() -> None:
    for kind in LEAVES:
        answer = refuse(kind(), "request-1")
        assert ("retry-after" in answer.headers) == (kind.retry_after is not None), kind
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0


def test_retry_after_is_rounded_up_to_be_enough() -> None:
    assert refuse(TooManySends(retry_after=1.2), "request-1").headers["retry-after"] == "2"
    assert refuse(TooManySends(retry_after=0.001), "request-1").headers["retry-after"] == "1"


def test_an_error_without_a_slug_of_its_own_is_told_as_a_defect() -> None:
    answer = refuse(Taken("users.openid = 'secret'"), "request-1")
    assert (answer.status_code, json.loads(bytes(answer.body))["reason"]) == (500, Internal.slug)
    assert b"secret" not in answer.body


def test_details_for_operators_stay_inside() -> None:
    assert b"10.0.0.7" not in refuse(LlmOverloaded("vendor at 10.0.0.7 said no"), "request-1").body


def test_a_bad_field_is_named() -> None:
    assert json.loads(bytes(refuse(InvalidRequest("content"), "request-1").body))["message"] == "请求参数错误：content"


def test_a_failed_turn_is_told_by_its_stored_reason_with_its_ids() -> None:
    turn = a_turn(a_session(a_user()))
    failed = replace(turn, reply=turn.reply.ended(End.failure(LlmOverloaded(), NOW)))
    answer = refuse(TurnFailed(failed), "request-1")
    body = json.loads(bytes(answer.body))
    assert (answer.status_code, body["code"], body["reason"], body["data"]) == (500, 500, "llm_overloaded", None)
    assert answer.headers["retry-after"] == "5"
    assert body["turn"] == {
        "sessionId": turn.message.session_id,
        "messageId": turn.reply.id,
        "userMessageId": turn.message.id,
    }


def test_the_documentation_lists_every_error_as_it_is() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = [line for line in documented.splitlines() if re.match(r"\| \d", line)]
    expected = []
    for kind in LEAVES:
        wait = math.ceil(kind.retry_after) if kind.retry_after else "–"
        meaning = " ".join((kind.__doc__ or "").split())
        expected.append(f"| {status_of(kind)} | `{kind.slug}` | {SENTENCES[kind.slug]} | {meaning} | {wait} |")
    assert rows == sorted(expected)
