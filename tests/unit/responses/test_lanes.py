"""Which request of a connection runs when, and what the connection remembers."""

from __future__ import annotations

import pytest
from msgspec import Raw

from app.responses.lanes import Bounds, Kept, Lanes
from app.turn.errors import InvalidRequest, RateLimited
from app.turn.items import StoredItem


def items(*sizes: int) -> tuple[StoredItem, ...]:
    return tuple(StoredItem(f"msg_{number}", Raw(b"x" * size)) for number, size in enumerate(sizes))


def test_a_lane_is_first_come_first_served_and_lanes_do_not_wait_for_each_other() -> None:
    lanes: Lanes[str] = Lanes(100)
    assert lanes.admit("a", "a1", 1)
    assert not lanes.admit("a", "a2", 1)
    assert not lanes.admit("a", "a3", 1)
    assert lanes.admit(None, "n1", 1)
    assert [lanes.done("a"), lanes.done(None), lanes.done("a"), lanes.done("a")] == ["a2", None, "a3", None]
    assert len(lanes) == 0
    assert lanes.admit("a", "a4", 1)


def test_a_lane_too_many_is_refused_until_one_is_free() -> None:
    lanes: Lanes[str] = Lanes(100, Bounds(lanes=2))
    assert lanes.admit("a", "1", 1)
    assert lanes.admit("b", "2", 1)
    with pytest.raises(InvalidRequest) as refused:
        lanes.admit("c", "3", 1)
    assert (refused.value.code, refused.value.param) == ("websocket_stream_limit_reached", "stream_id")
    assert not lanes.admit("b", "4", 1)
    lanes.done("a")
    assert lanes.admit("c", "3", 1)


@pytest.mark.parametrize(("count", "size"), [(2, 1), (1, 60)])
def test_what_waits_is_bounded_in_number_and_in_bytes(count: int, size: int) -> None:
    lanes: Lanes[int] = Lanes(100, Bounds(waiting=2))
    lanes.admit(None, 0, 1)
    for number in range(count):
        assert not lanes.admit(None, number, size)
    with pytest.raises(RateLimited):
        lanes.admit(None, 9, size)
    lanes.done(None)
    assert not lanes.admit(None, 9, size)


def test_the_oldest_context_goes_first() -> None:
    kept = Kept(Bounds(kept=2, kept_bytes=100))
    for name in ("a", "b", "c"):
        kept.keep(name, items(10))
    assert [kept.context(name) is not None for name in ("a", "b", "c")] == [False, True, True]
    kept.keep("d", items(50, 45))
    assert [kept.context(name) is not None for name in ("b", "c", "d")] == [False, False, True]


def test_a_context_too_large_is_not_kept_and_costs_no_other_its_place() -> None:
    kept = Kept(Bounds(kept_bytes=100))
    kept.keep("a", items(10))
    kept.keep("b", items(101))
    assert kept.context("a") == items(10)
    assert kept.context("b") is None


def test_what_is_forgotten_makes_room() -> None:
    kept = Kept(Bounds(kept_bytes=100))
    kept.keep("a", items(60))
    kept.forget("a")
    kept.forget("a")
    kept.forget(None)
    kept.keep("b", items(60))
    kept.keep("c", items(40))
    assert kept.context("a") is None
    assert kept.context("b") == items(60)
