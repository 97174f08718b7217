"""Two stores beside each other: what one of them cannot tell at the moment, and whom that concerns."""

from dataclasses import replace

import pytest

from chatassist.domain.errors import StoreUnavailable
from chatassist.domain.model import Preferences
from tests.unit.worlds import FaultyStore, World


@pytest.fixture
async def world() -> World:
    """A world whose unsaved store does not answer, as Redis does not when it is away."""
    world = World()
    away = FaultyStore()
    away.away = True
    object.__setattr__(world.stores, "unsaved", away)
    return world


async def test_who_has_everything_saved_sends_on_while_the_unsaved_store_is_away(world: World) -> None:
    anna = await world.somebody("anna")
    sent = await world.send(anna, key="key-1")
    ended = await world.end_of(sent.turn)
    assert (await world.send(anna, key="key-1")).turn.reply == ended.reply
    assert len(world.vendor.prompts) == 1


async def test_who_wants_nothing_kept_is_told_so(world: World) -> None:
    anna = await world.somebody("anna")
    private = replace(anna, preferences=Preferences(save_history=False))
    for key in ("key-1", None):
        with pytest.raises(StoreUnavailable):
            await world.send(private, key=key)
    assert world.vendor.prompts == []
