"""What a model is given: which earlier turns go with a question, by a budget of tokens and never the whole history."""

from collections.abc import Sequence
from dataclasses import dataclass

from chatassist.domain.model import Prompt, Role, Utterance
from chatassist.domain.turns import Exchange, Message

WINDOW_TURNS = 50
"""How many turns are ever looked at; the token budget usually ends it sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRules:
    """The operator's choices. `history_tokens` bounds earlier turns; system prompt and question are sent whole."""

    system: str = ""
    history_tokens: int = 6000


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text is: one per CJK character, one per four others, and a few for the framing.

    By the length of its UTF-8, in which a CJK character has two bytes more than an ASCII one: no loop over characters.
    """
    wide = (len(text.encode(errors="replace")) - len(text)) // 2
    return 4 + wide + max(len(text) - wide + 3, 0) // 4


def build_prompt(rules: PromptRules, earlier: Sequence[Exchange], message: Message, model: str | None) -> Prompt:
    """Return the prompt for `message` after `earlier` exchanges (oldest first): the youngest that fit, each whole."""
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
    return Prompt(utterances=tuple(reversed(utterances)), model=model)
