"""What a worker is guessed to hold: what it uses stays, of the rest what was used last."""

from __future__ import annotations

from app.routing.approx import RecentBlocks
from app.routing.index import BlockIndex


def held(index: BlockIndex, keys: range) -> list[int]:
    return [key for key in keys if index.holds(0, key)]


def test_what_turns_use_is_not_forgotten_for_what_they_left() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 6)
    recent.use(range(1, 5))
    recent.use(range(11, 14))
    recent.leave(range(11, 14), 0)
    # Four are in use, so there is room for two of those that were left: the head of their prompt.
    assert (held(index, range(20)), len(recent)) == ([1, 2, 3, 4, 11, 12], 6)
    recent.leave(range(1, 5), 0)
    recent.use(range(21, 25))
    recent.leave(range(21, 25), 0)
    assert held(index, range(30)) == [1, 2, 21, 22, 23, 24]


def test_a_turn_that_found_its_beginning_there_used_that_last() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 4)
    for keys in (range(1, 3), range(11, 13)):
        recent.use(keys)
        recent.leave(keys, 0)
    recent.use(range(3, 4))
    recent.leave(range(1, 4), 2)
    assert held(index, range(20)) == [1, 2, 3, 11]


def test_what_two_turns_use_stays_until_both_are_over() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 1)
    recent.use(range(1, 4))
    recent.use(range(1, 3))
    recent.discard(range(1, 4))
    assert held(index, range(10)) == [1, 2]
    recent.leave(range(1, 3), 0)
    assert (held(index, range(10)), len(recent)) == ([1], 1)
    recent.use(range(5, 7))
    recent.clear()
    assert (held(index, range(10)), len(recent)) == ([], 0)
