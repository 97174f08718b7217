"""The same conversation through every row of the catalogue, each vendor speaking as it does: one and the same turns."""

from typing import Any

import pytest
from sqlalchemy import URL

from chatassist.adapters.catalogue import CATALOGUE
from tests.fixtures.lists import history
from tests.fixtures.service import Serve, settings_for
from tests.fixtures.vendor import LoopbackVendor
from tests.fixtures.vendor_manners import KEY, MANNERS, MODEL, Said

SYSTEM = ("system", "答得短一些。")
QUESTIONS = ("2+2 等于几？😀", "再乘以三呢？")
TURNS = (
    Said(
        messages=[SYSTEM, ("user", QUESTIONS[0])],
        thinking="Let me see: 先加一下 🤔",
        texts=("等于", " **4**", "，\n因为 a < b & `<think>` 也", "是字。👍"),
        given=21,
        made=34,
    ),
    Said(
        messages=[
            SYSTEM,
            ("user", QUESTIONS[0]),
            ("assistant", "等于 **4**，\n因为 a < b & `<think>` 也是字。👍"),
            ("user", QUESTIONS[1]),
        ],
        thinking="4 × 3",
        texts=("12",),
        given=55,
        made=8,
    ),
)


def configured(kind: str, base_url: str) -> dict[str, str]:
    """What an operator sets who uses this kind of vendor, with an address of his own."""
    key = {"api_key": KEY} if MANNERS[kind].shown else {}
    return {"vendor": kind, "base_url": base_url, "model": MODEL, "system_prompt": SYSTEM[1], **key}


def test_every_row_has_a_manner() -> None:
    assert set(MANNERS) == set(CATALOGUE)


@pytest.mark.parametrize("kind", MANNERS)
async def test_the_same_conversation_gives_the_same_turns_whoever_answers(
    sqlite_url: URL, serve: Serve, vendor: LoopbackVendor, kind: str
) -> None:
    manner = MANNERS[kind]
    vendor.answers(*map(manner.answers, TURNS))
    root = vendor.base_url.removesuffix("/v1")
    api = await serve(settings_for(sqlite_url, llm=configured(kind, root + manner.path)))
    person = await api.login()
    session = ""
    for question in QUESTIONS:
        session = (await person.says(question, sessionId=session))["sessionId"]

    told = ("role", "content", "thinking", "status", "finishReason", "model", "usage", "aiGenerated")
    items: list[dict[str, Any]] = (await history(person, session))["items"]
    assert [{name: item[name] for name in told if name in item} for item in items] == turns(thinks=manner.thinks)
    assert len(vendor.requests) == 2
    await vendor.until(lambda: vendor.busy == 0)


def turns(*, thinks: bool) -> list[dict[str, Any]]:
    """What is kept of the conversation."""
    kept: list[dict[str, Any]] = []
    for question, said in zip(QUESTIONS, TURNS, strict=True):
        kept.append({"role": "user", "content": question, "status": "complete", "aiGenerated": False})
        kept.append(
            {
                "role": "assistant",
                "content": "".join(said.texts),
                **({"thinking": said.thinking} if thinks else {}),
                "status": "complete",
                "finishReason": "stop",
                "model": MODEL,
                "usage": {"inputTokens": said.given, "outputTokens": said.made},
                "aiGenerated": True,
            }
        )
    return kept
