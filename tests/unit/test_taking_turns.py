"""Models that share a vendor which takes one call at a time."""

import asyncio

from chatassist.adapters.llm.taking_turns import TurnTakingChatModel
from chatassist.domain.errors import LlmUnavailable
from tests.unit.takes import Takes, asking, hear


async def test_they_speak_in_the_order_they_came_and_never_together() -> None:
    turn, end = asyncio.Lock(), asyncio.Event()
    replies, titles = Takes(("a reply", end)), Takes("a title")
    first, other = TurnTakingChatModel(replies, turn), TurnTakingChatModel(titles, turn)

    readers = [asyncio.create_task(hear(model, asking("hm"))) for model in (first, other, first)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert (replies.calls, titles.calls) == (1, 0)

    end.set()
    assert await asyncio.gather(*readers) == ["a reply", "a title", "a reply"]
    assert replies.most_open == 1


async def test_whoever_fails_or_leaves_gives_its_turn_up() -> None:
    turn = asyncio.Lock()
    failing = TurnTakingChatModel(Takes(LlmUnavailable("broken")), turn)
    waiting = TurnTakingChatModel(Takes(("a reply", asyncio.Event())), turn)
    leaver, late = [asyncio.create_task(hear(waiting, asking("hm"))) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    for reader in (late, leaver):  # one that waits, one that is being answered
        reader.cancel()
        await asyncio.wait({reader})

    assert isinstance(await hear(failing, asking("hm")), LlmUnavailable)
    assert not turn.locked()


async def test_room_and_end_are_those_of_the_model() -> None:
    model = Takes()
    taking = TurnTakingChatModel(model, asyncio.Lock())
    assert (taking.room("m"), model.rooms) == (3, ["m"])
    await taking.aclose()
    assert model.closed
