"""What a model is given: which earlier turns go with a question, by a budget of tokens and never the whole history."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.turns import Exchange, Message, Usage

WINDOW_TURNS = 50
"""How many turns are ever looked at; the token budget usually ends it sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRules:
    """The operator's choices. `history_tokens` bounds earlier turns; system prompt and question are sent whole.

    `models`: what may be asked for by name.
    """

    system: str = ""
    history_tokens: int = 6000
    models: Collection[str] = ()


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text is: one per CJK character, one per four others, and a few for the framing.

    By the length of its UTF-8, in which a CJK character has two bytes more than an ASCII one: no loop over characters.
    """
    wide = (len(text.encode(errors="replace")) - len(text)) // 2
    return 4 + wide + max(len(text) - wide + 3, 0) // 4


def estimate_usage(prompt: Prompt, *said: str) -> Usage:
    """Estimate what a reply took of which these texts came, for want of a vendor that counts."""
    return Usage(
        input_tokens=sum(estimate_tokens(one.content) for one in prompt.utterances),
        output_tokens=sum(estimate_tokens(text) for text in said if text),
        estimated=True,
    )


def build_prompt(rules: PromptRules, earlier: Sequence[Exchange], message: Message, model: str | None) -> Prompt:
    """Return the prompt for `message` after `earlier` exchanges (oldest first): the youngest that fit, each whole.

    A model that was chosen once and is offered no more gives way to the default.
    """
    utterances = [Utterance(role=Role.USER, content=message.content)]
    left = rules.history_tokens
    for exchange in reversed(earlier):
        left -= estimate_tokens(exchange.question) + estimate_tokens(exchange.answer)
        if left < 0:
            break
        utterances.append(Utterance(role=Role.ASSISTANT, content=exchange.answer))
        utterances.append(Utterance(role=Role.USER, content=exchange.question))
    if rules.system:
        utterances.append(Utterance(role=Role.SYSTEM, content=rules.system))
    return Prompt(utterances=tuple(reversed(utterances)), model=model if model in rules.models else None)
