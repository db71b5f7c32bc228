"""What a worker is guessed to hold: what it uses stays, of the rest what was used last."""

from __future__ import annotations

from app.routing.approx import RecentBlocks
from app.routing.cachemap import CacheMap
from app.routing.index import BlockIndex


def held(index: BlockIndex, keys: range) -> list[int]:
    return [key for key in keys if index.holds(0, key)]


def test_what_turns_use_is_not_forgotten_for_what_they_left() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 6)
    recent.sent(1, range(1, 5))
    recent.sent(2, range(11, 14))
    recent.ended(2, range(11, 14))
    # Four are in use, so there is room for two of those that were left: the head of their prompt.
    assert (held(index, range(20)), len(recent)) == ([1, 2, 3, 4, 11, 12], 6)
    recent.ended(1, range(1, 5))
    recent.sent(3, range(21, 25))
    recent.ended(3, range(21, 25))
    assert held(index, range(30)) == [1, 2, 21, 22, 23, 24]


def test_a_turn_that_found_its_beginning_there_used_that_last() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 4)
    for turn, keys in enumerate((range(1, 3), range(11, 13), range(1, 4))):
        recent.sent(turn, keys)
        recent.ended(turn, keys)
    assert held(index, range(20)) == [1, 2, 3, 11]


def test_what_two_turns_use_stays_until_both_are_over() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 1)
    recent.sent(1, range(1, 4))
    recent.sent(2, range(1, 3))
    recent.withdrawn(1)
    assert held(index, range(10)) == [1, 2]
    recent.ended(2, range(1, 3))
    assert (held(index, range(10)), len(recent)) == ([1], 1)
    recent.sent(3, range(5, 7))
    recent.clear()
    assert (held(index, range(10)), len(recent)) == ([], 0)


def test_a_turn_that_was_under_way_when_all_was_forgotten_leaves_what_it_used() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 3)
    recent.sent(1, range(1, 4))
    recent.clear()
    recent.sent(2, range(1, 3))
    recent.ended(1, range(1, 4))
    assert held(index, range(10)) == [1, 2, 3]
    recent.sent(3, range(5, 8))
    recent.settle()
    # The first is over and has no part in what the second one uses.
    assert held(index, range(10)) == [1, 2, 5, 6, 7]


def test_blocks_the_index_had_no_room_for_are_shown_to_it_again() -> None:
    index = BlockIndex(3)
    index.store(1, [7, 8])
    recent = RecentBlocks(index, 0, 9)
    recent.ended(1, range(1, 4))
    assert held(index, range(10)) == [1]
    index.drop(1, [7, 8])
    recent.sent(2, range(1, 4), 1)
    assert held(index, range(10)) == [1, 2, 3]


def test_what_a_turn_displaces_is_gone_before_anybody_asks_and_when_it_was_read() -> None:
    caches = CacheMap(capacity=100, worker_blocks=4)
    caches.view("w").ended(1, range(1, 5))
    caches.sent("w", 2, range(11, 14), 0)
    assert len(caches.view("w")) == 7
    assert caches.depths(range(1, 5)) == {caches.slot("w"): 1}
    caches.sent("w", 3, range(21, 22), 0)
    caches.settle()
    assert len(caches.view("w")) == 4


def test_what_waits_displaces_nothing_before_it_is_sent() -> None:
    index = BlockIndex(100)
    recent = RecentBlocks(index, 0, 4)
    recent.ended(1, range(1, 5))
    recent.sent(2, range(11, 14), waits=True)
    recent.sent(3, range(21, 24), waits=True)
    recent.settle()
    assert held(index, range(10)) == [1, 2, 3, 4]
    # Nor if it is never sent.
    recent.withdrawn(3)
    assert held(index, range(30)) == [1, 2, 3, 4, 11, 12, 13]
    recent.begun(2)
    assert held(index, range(30)) == [1, 11, 12, 13]
