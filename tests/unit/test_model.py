"""The values of the domain and the rules that need nothing but the values."""

from dataclasses import replace
from datetime import timedelta

import pytest

from chatassist.domain.errors import (
    ContentEmpty,
    ContentInvalid,
    ContentTooLong,
    KeyInvalid,
    LlmTimeout,
)
from chatassist.domain.model import AVATAR_CHARS, NICKNAME_CHARS, WECHAT_PLACEHOLDER, Profile, is_clean, is_id
from chatassist.domain.turns import Draft, End, Feedback, FinishReason, Rating, Status, Usage
from tests.builders import NOW, a_session, a_turn, a_user, an_end, new_id

ID = "0193" + "a" * 28
SURROGATES = (chr(0xD800), chr(0xDFFF))
AVATAR = "https://thirdwx.qlogo.cn/mmopen/132"


# --- Ids and characters ---------------------------------------------------------------------------------------------


def test_an_id_is_32_small_hex_digits() -> None:
    assert is_id(ID)
    assert is_id(new_id())


@pytest.mark.parametrize(
    "text", ["", ID[:-1], ID + "0", ID.upper(), ID[:-1] + "g", ID + "\n", " " + ID, "a" * 31 + "ａ"]
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    "text", ["", "你好", "tab\tand\nnewline", "👩‍👩‍👧", "\u202e\ufeff\u2028", "\U0010ffff", "\xa0"]
)
def test_text_that_can_be_stored_and_shown_is_clean(text: str) -> None:
    assert is_clean(text)


@pytest.mark.parametrize("char", ["\x00", "\x08", "\x0b", "\r", "\x1f", "\x7f", "\x80", "\x9f", *SURROGATES])
def test_a_control_character_or_a_lone_surrogate_is_not(char: str) -> None:
    assert not is_clean(f"before{char}after")


# --- What a client wants to say -------------------------------------------------------------------------------------


def test_a_draft_is_kept_trimmed() -> None:
    assert Draft(text=" \n\t 你好 呀\u3000\n").checked(5).text == "你好 呀"


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000\xa0"])
def test_a_blank_draft_is_empty(text: str) -> None:
    with pytest.raises(ContentEmpty):
        Draft(text=text).checked(10)


def test_its_length_is_counted_in_code_points_after_trimming() -> None:
    assert Draft(text=" " + "😀" * 3 + " ").checked(3).text == "😀😀😀"
    with pytest.raises(ContentTooLong):
        Draft(text="😀" * 4).checked(3)


@pytest.mark.parametrize("text", ["\ud83d", "a\x00b", "a\rb", "\x1b[31mred", " \x7f", "\x1c"])
def test_a_draft_with_what_cannot_be_stored_is_refused_and_never_repaired(text: str) -> None:
    with pytest.raises(ContentInvalid):
        Draft(text=text).checked(10)


def test_tab_and_newline_are_text() -> None:
    assert Draft(text="a\tb\nc").checked(10).text == "a\tb\nc"


@pytest.mark.parametrize("key", ["k", "A-z_09", "x" * 64])
def test_a_key_is_up_to_64_of_the_url_safe_characters(key: str) -> None:
    assert Draft(text="hi", key=key).checked(10).key == key


@pytest.mark.parametrize("key", ["", "x" * 65, "a b", "a.b", "键", "key\n", "é"])
def test_any_other_key_is_refused(key: str) -> None:
    with pytest.raises(KeyInvalid):
        Draft(text="hi", key=key).checked(10)


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_session_or_model_is_none(nothing: str | None) -> None:
    checked = Draft(text="hi", session_id=nothing, model=nothing).checked(10)

    assert (checked.session_id, checked.model, checked.key) == (None, None, None)


SESSION = a_session(a_user())
OTHER_SESSION = a_session(a_user())


@pytest.mark.parametrize(
    ("position", "given", "repeats"),
    [
        # The first send opened the session: empty, null, absent and its id are equal.
        (1, {}, True),
        (1, {"session_id": ""}, True),
        (1, {"session_id": SESSION.id}, True),
        (1, {"session_id": OTHER_SESSION.id}, False),
        # The first send named the session: so must the others.
        (2, {"session_id": SESSION.id}, True),
        (2, {}, False),
        (2, {"session_id": ""}, False),
        (2, {"session_id": OTHER_SESSION.id}, False),
        # The trimmed content and the model.
        (1, {"text": "  a question\n"}, True),
        (1, {"text": "A question"}, False),
        (1, {"text": "a  question"}, False),
        (1, {"model": ""}, True),
        (1, {"model": "large"}, False),
    ],
)
def test_a_draft_repeats_a_turn(position: int, given: dict[str, str], repeats: bool) -> None:
    draft = replace(Draft(text="a question"), **given).checked(100)

    assert draft.repeats(a_turn(SESSION, position)) is repeats


@pytest.mark.parametrize(("model", "repeats"), [("large", True), ("small", False), ("", False), (None, False)])
def test_a_draft_repeats_a_turn_that_named_a_model_only_with_that_model(model: str | None, repeats: bool) -> None:
    draft = Draft(text="a question", model=model).checked(100)

    # What the vendor says answered is another matter than what the user asked for.
    assert draft.repeats(a_turn(SESSION, requested_model="large", model="large-2026-11")) is repeats


# --- Sessions -------------------------------------------------------------------------------------------------------


def test_a_session_keeps_the_model_that_was_named_last() -> None:
    chosen = SESSION.began(NOW, turns=1, said="hi", model="large")

    assert (SESSION.model, chosen.model) == (None, "large")
    assert chosen.began(NOW, turns=1, said="hi").model == "large"
    assert chosen.began(NOW, turns=1, said="hi", model="small").model == "small"


@pytest.mark.parametrize(
    ("own", "of_the_origin", "kept"), [(None, "large", "large"), ("small", "large", "small"), ("small", None, "small")]
)
def test_a_session_that_continues_another_goes_on_with_its_model(
    own: str | None, of_the_origin: str | None, kept: str
) -> None:
    origin = replace(SESSION, model=of_the_origin)

    assert replace(OTHER_SESSION, model=own).continuing(origin).model == kept


# --- People ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "claimed", "worn"),
    [
        ("", "安娜", "安娜"),
        ("", WECHAT_PLACEHOLDER, WECHAT_PLACEHOLDER),
        (WECHAT_PLACEHOLDER, "安娜", "安娜"),
        ("安娜", WECHAT_PLACEHOLDER, "安娜"),
        ("安娜", f" {WECHAT_PLACEHOLDER}\n", "安娜"),
        ("安娜", "", "安娜"),
        ("安娜", " \t", "安娜"),
        ("安娜", "Anna", "Anna"),
        ("", "  Anna ", "Anna"),
        ("安娜", "a\x00b", "安娜"),
        ("安娜", "half an emoji \ud83d", "安娜"),
        ("", "😀" * 40, "😀" * NICKNAME_CHARS),
        ("", "x" * 31 + "  y", "x" * 31),
    ],
)
def test_a_nickname_is_worn_unless_it_is_worse_than_the_stored_one(stored: str, claimed: str, worn: str) -> None:
    assert a_user(nickname=stored).wearing(Profile(nickname=claimed)).nickname == worn


@pytest.mark.parametrize(
    ("stored", "claimed", "worn"),
    [
        ("", AVATAR, AVATAR),
        (AVATAR, AVATAR + "?new", AVATAR + "?new"),
        (AVATAR, "", AVATAR),
        (AVATAR, "http://thirdwx.qlogo.cn/132", AVATAR),
        (AVATAR, "wxfile://tmp_1234.png", AVATAR),
        (AVATAR, "https://", AVATAR),
        (AVATAR, "https://a b", AVATAR),
        (AVATAR, "https://a/\nb", AVATAR),
        (AVATAR, "javascript:alert(1)//https://", AVATAR),
        (AVATAR, "https://a/\ud800", AVATAR),
        (AVATAR, "https://a/\x00", AVATAR),
        (AVATAR, "https://a/".ljust(AVATAR_CHARS + 1, "x"), AVATAR),
        (AVATAR, full := "https://a/".ljust(AVATAR_CHARS, "x"), full),
    ],
)
def test_an_avatar_is_worn_if_it_is_a_short_clean_https_address(stored: str, claimed: str, worn: str) -> None:
    assert a_user(avatar=stored).wearing(Profile(avatar=claimed)).avatar == worn


def test_a_bad_name_does_not_spoil_a_good_avatar_and_nothing_else_changes() -> None:
    user = a_user(nickname="安娜", blocked=True)

    assert user.wearing(Profile(nickname="\x00", avatar=AVATAR)) == replace(user, avatar=AVATAR)
    assert user.wearing(Profile()) == user


# --- Replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "finish_reason", "content", "speaks"),
    [
        (Status.COMPLETE, FinishReason.STOP, "text", True),
        (Status.COMPLETE, FinishReason.LENGTH, "text", True),
        (Status.STOPPED, FinishReason.STOPPED, "text", True),
        (Status.STOPPED, FinishReason.STOPPED, "", False),
        (Status.COMPLETE, FinishReason.STOP, "", False),
        (Status.COMPLETE, FinishReason.BLOCKED, "a refusal", False),
        (Status.FAILED, FinishReason.ERROR, "half a text", False),
        (Status.RUNNING, None, "half a text", False),
    ],
)
def test_a_turn_speaks_when_its_reply_ended_well_with_text(
    status: Status, finish_reason: FinishReason | None, content: str, speaks: bool
) -> None:
    assert a_turn(SESSION, status=status, finish_reason=finish_reason, content=content).speaks is speaks


def test_a_running_reply_has_no_end() -> None:
    assert a_turn(SESSION).reply.end is None


def test_a_reply_that_ended_tells_its_end_as_it_was_given() -> None:
    usage, at = Usage(input_tokens=3, output_tokens=4), NOW + timedelta(seconds=2)
    end = an_end("text", thinking="hm", seq=4, model="m-1", usage=usage, at=at)
    reply = a_turn(SESSION, content="te", seq=1).reply

    ended = reply.ended(end)

    assert ended.end == end
    assert replace(ended, **{name: getattr(reply, name) for name in CHANGED_BY_AN_END}) == reply


CHANGED_BY_AN_END = ("status", "finish_reason", "reason", "content", "thinking", "seq", "model", "usage", "ended_at")


def test_an_end_without_content_leaves_the_texts_so_far() -> None:
    reply = a_turn(SESSION, content="so far", thinking="hm").reply.ended(End.failure(LlmTimeout(), NOW))

    assert (reply.status, reply.finish_reason, reply.content) == (Status.FAILED, FinishReason.ERROR, "so far")
    assert (reply.reason, reply.thinking) == ("llm_timeout", "hm")


@pytest.mark.parametrize(("attempt", "last"), [(0, 1_000_000), (1, 2_000_000), (7, 8_000_000)])
def test_an_end_that_knows_no_number_has_the_last_one_of_its_attempt(attempt: int, last: int) -> None:
    reply = a_turn(SESSION, attempt=attempt, seq=attempt * 1_000_000 + 3).reply

    assert reply.ended(End.stop(NOW)).seq == last
    assert reply.ended(End.failure(LlmTimeout(), NOW)).seq == last
    assert reply.ended(an_end(seq=5)).seq == 5


def test_a_failed_reply_begins_again_where_its_attempt_cannot_reach_with_nothing_said() -> None:
    failed = a_turn(SESSION, key="k", requested_model="large", version=2, content="half", thinking="hm").reply
    failed = replace(failed.ended(End.failure(LlmTimeout(), NOW)), feedback=Feedback(rating=Rating.LIKE))

    again = failed.restarted("instance-2")

    assert (again.attempt, again.first_seq, again.seq) == (1, 1_000_000, 1_000_000)
    assert (again.status, again.content, again.thinking, again.reason, again.end) == ("running", "", "", None, None)
    assert again.instance_id == "instance-2"
    kept = ("id", "version", "key", "requested_model", "created_at", "feedback")
    assert [getattr(again, name) for name in kept] == [getattr(failed, name) for name in kept]
    assert again.restarted("instance-3").first_seq == 2_000_000


def test_an_end_may_empty_the_text() -> None:
    assert a_turn(SESSION, content="so far").reply.ended(an_end("")).content == ""
