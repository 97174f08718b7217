"""What goes into a prompt: the youngest whole turns within the budget, and never the whole history."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from chatassist.domain.model import Role, Utterance
from chatassist.domain.prompt import PromptRules, build_prompt, estimate_tokens, estimate_usage
from chatassist.domain.turns import Exchange, Turn, Usage
from tests.builders import a_session, a_turn, a_user

SESSION = a_session(a_user())


def turns(*said: tuple[str, str]) -> list[Turn]:
    return [a_turn(SESSION, place, text, content=reply) for place, (text, reply) in enumerate(said, start=1)]


def prompt(earlier: Sequence[Turn], *, budget: int = 6000, system: str = "", question: str = "?") -> list[Utterance]:
    rules = PromptRules(system=system, history_tokens=budget)
    exchanges = [Exchange.of(turn) for turn in earlier]
    return list(build_prompt(rules, exchanges, a_turn(SESSION, len(earlier) + 1, question).message, None).utterances)


def said(utterances: Sequence[Utterance]) -> list[str]:
    return [f"{one.role}: {one.content}" for one in utterances]


def cost(turn: Turn) -> int:
    return estimate_tokens(turn.message.content) + estimate_tokens(turn.reply.content)


def test_a_prompt_opens_with_the_system_goes_on_oldest_first_and_ends_with_the_question() -> None:
    assert said(prompt(turns(("q1", "a1"), ("q2", "a2")), system="be kind", question="q3")) == [
        "system: be kind",
        "user: q1",
        "assistant: a1",
        "user: q2",
        "assistant: a2",
        "user: q3",
    ]


def test_without_a_system_prompt_and_earlier_turns_it_is_the_question_alone() -> None:
    assert said(prompt([], question="hello")) == ["user: hello"]


def test_the_users_choice_of_a_model_goes_with_it() -> None:
    message = a_turn(SESSION).message

    assert build_prompt(PromptRules(models={"large"}), [], message, "large").model == "large"
    assert build_prompt(PromptRules(models={"large"}), [], message, None).model is None


def test_a_choice_that_is_offered_no_more_gives_way_to_the_default() -> None:
    assert build_prompt(PromptRules(models={"small"}), [], a_turn(SESSION).message, "large").model is None


def test_the_system_prompt_and_the_question_are_whole_even_without_any_budget() -> None:
    system, question = "规则" * 5000, "问题" * 4000

    assert said(prompt(turns(("q", "a")), budget=0, system=system, question=question)) == [
        f"system: {system}",
        f"user: {question}",
    ]


def test_a_turn_that_fits_to_the_token_is_in_and_one_token_less_leaves_it_out() -> None:
    earlier = turns(("q1", "a1"), ("第二个问题", "第二个回答"))
    youngest = cost(earlier[1])

    assert said(prompt(earlier, budget=youngest)) == ["user: 第二个问题", "assistant: 第二个回答", "user: ?"]
    assert said(prompt(earlier, budget=youngest - 1)) == ["user: ?"]


def test_behind_a_turn_that_is_too_long_nothing_older_is_let_in() -> None:
    earlier = turns(("short", "short"), ("长" * 500, "long"), ("q3", "a3"))

    assert said(prompt(earlier, budget=100)) == ["user: q3", "assistant: a3", "user: ?"]


def test_a_history_of_any_length_costs_no_more_than_its_budget() -> None:
    earlier = turns(*[("一个问题", "一个回答")] * 1000)

    assert 2 < len(prompt(earlier, budget=300)) < 2 * 300 / 16 + 2


def test_tokens_are_estimated_one_a_chinese_character_and_one_for_four_others() -> None:
    assert estimate_tokens("") == 4
    assert estimate_tokens("你好吗") == 4 + 3
    assert estimate_tokens("abcd") == 4 + 1
    assert estimate_tokens("abcde") == 4 + 2
    assert estimate_tokens("你a😀") == 4 + 2 + 1


def test_what_a_reply_took_is_estimated_from_its_whole_prompt_and_all_that_was_made() -> None:
    asked = build_prompt(PromptRules(system="be kind"), [], a_turn(SESSION, text="你好").message, None)
    read = estimate_tokens("be kind") + estimate_tokens("你好")

    usage = estimate_usage(asked, "一个回答", "a thought")
    assert usage == Usage(
        input_tokens=read, output_tokens=estimate_tokens("一个回答") + estimate_tokens("a thought"), estimated=True
    )
    assert estimate_usage(asked, "", "") == Usage(input_tokens=read, output_tokens=0, estimated=True)


words = st.text(alphabet="ab 你好😀", max_size=30)


@settings(max_examples=60, deadline=None, database=None)
@given(said=st.lists(st.tuples(words, words), max_size=12), budget=st.integers(0, 200), system=words, question=words)
def test_a_prompt_holds_the_longest_youngest_run_of_whole_turns_within_the_budget(
    said: list[tuple[str, str]], budget: int, system: str, question: str
) -> None:
    earlier = turns(*said)

    utterances = prompt(earlier, budget=budget, system=system, question=question)

    assert utterances.pop() == Utterance(role=Role.USER, content=question)
    if system:
        assert utterances.pop(0) == Utterance(role=Role.SYSTEM, content=system)
    kept = len(utterances) // 2
    youngest = earlier[len(earlier) - kept :]
    assert utterances == [
        Utterance(role=role, content=content)
        for turn in youngest
        for role, content in ((Role.USER, turn.message.content), (Role.ASSISTANT, turn.reply.content))
    ]
    spent = sum(map(cost, youngest))
    assert spent <= budget
    if kept < len(earlier):  # it ended because the next one does not fit
        assert spent + cost(earlier[len(earlier) - kept - 1]) > budget
