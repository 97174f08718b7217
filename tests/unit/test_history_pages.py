"""Which messages stand on a page of history: pure counting."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from chatassist.domain.history import Cut, Leaf, Place
from chatassist.domain.turns import Turn
from tests.builders import a_session, a_turn, a_user

SESSION = a_session(a_user())

positions_of_turns = st.lists(st.integers(1, 40), unique=True, max_size=25).map(sorted)
limits = st.integers(1, 12)


def turns_at(positions: Sequence[int]) -> list[Turn]:
    return [a_turn(SESSION, position) for position in positions]


def found(turns: Sequence[Turn], leaf: Leaf) -> Sequence[Turn]:
    """What a store returns for the stretch of a leaf."""
    stretch = leaf.stretch
    at = stretch.position
    if stretch.older:
        return [turn for turn in turns if at is None or turn.message.position <= at][-stretch.limit :]
    return [turn for turn in turns if at is None or turn.message.position >= at][: stretch.limit]


def slots(cut: Cut) -> list[int]:
    return [entry.place.slot for entry in cut.entries]


@given(positions_of_turns, limits)
def test_without_an_anchor_the_newest_messages_are_shown(positions: list[int], limit: int) -> None:
    everything = [slot for position in positions for slot in (2 * position, 2 * position + 1)]
    leaf = Leaf(limit=limit)
    cut = leaf.cut(found(turns_at(positions), leaf))
    assert slots(cut) == everything[-limit:]
    assert (cut.more_before, cut.more_after) == (len(everything) > limit, False)


@given(positions_of_turns.filter(bool), limits, st.booleans(), st.data())
def test_an_anchor_shows_its_neighbours_on_one_side(
    positions: list[int], limit: int, older: bool, data: st.DataObject
) -> None:
    everything = [slot for position in positions for slot in (2 * position, 2 * position + 1)]
    anchor = Place(position=data.draw(st.sampled_from(positions)), is_reply=data.draw(st.booleans()))
    leaf = Leaf(limit=limit, anchor=anchor, older=older)
    cut = leaf.cut(found(turns_at(positions), leaf))
    before = [slot for slot in everything if slot < anchor.slot]
    after = [slot for slot in everything if slot > anchor.slot]
    if older:
        assert slots(cut) == before[-limit:]
        assert (cut.more_before, cut.more_after) == (len(before) > limit, True)
    else:
        assert slots(cut) == after[:limit]
        assert (cut.more_before, cut.more_after) == (True, len(after) > limit)


def test_a_stretch_never_grows_with_the_history() -> None:
    assert {Leaf(limit=limit).stretch.limit - limit // 2 for limit in range(1, 101)} == {2}
