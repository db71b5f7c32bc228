"""What a worker is thought to have to do: it runs down with the clock, and grows again when the worker is late."""

from __future__ import annotations

import math

import pytest

from app.routing.board import Board
from app.routing.cachemap import CacheMap
from app.routing.engine_load import EngineLoad
from app.routing.loads import Load
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.routing.rates import Rate


def test_it_runs_down_and_what_is_late_keeps_others_away() -> None:
    load = Load(Board(), 0, Rate(), 0.5)
    load.sent(1, 2.0, now=10.0)
    assert [load.backlog(now) for now in (10.0, 11.0, 12.0, 15.0)] == [2.0, 1.0, 0.0, 3.0]
    load.spoke(1, now=15.0)
    assert [load.backlog(now) for now in (15.0, 99.0)] == [0.0, 0.0]


def test_what_is_late_counts_as_no_more_than_all_that_was_sent_once_one_spoke() -> None:
    load = Load(Board(), 0, Rate(), 0.5)
    load.sent(1, 2.0, now=0.0)
    load.sent(2, 1.0, now=0.0)
    load.spoke(1, now=30.0)
    assert load.backlog(30.0) == 1.0


def test_what_is_late_stays_late_whatever_is_sent_after_it() -> None:
    load = Load(Board(), 0, Rate(), 0.5)
    load.sent(1, 2.0, now=0.0)
    load.sent(2, 1.0, now=12.0)
    assert load.backlog(12.0) == 11.0
    assert load.backlog(14.0) == 12.0
    # Somebody who was let pass changes nothing for those behind it.
    load.spoke(2, now=14.0)
    assert load.backlog(14.0) == 14.0
    load.spoke(1, now=14.0)
    assert load.backlog(14.0) == 0.0


def test_time_spent_reading_fades_and_is_not_lost_when_the_clock_is_far() -> None:
    board = Board()
    load, other = Load(board, 0, Rate(), 0.5), Load(board, 1, Rate(), 0.5)
    load.sent(1, 5.0, now=1_000_000.0)
    assert load.busy(1_000_000.0) == pytest.approx(0.5)
    assert load.busy(1_000_010.0) == pytest.approx(0.5 / math.e)
    other.sent(2, 5.0, now=1_000_600.0)
    assert (load.busy(1_000_600.0), other.busy(1_000_600.0)) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.5))


def test_workers_are_seen_in_the_order_they_are_asked_about_in() -> None:
    board = Board()
    rows = {name: row for row, name in enumerate("abc")}
    loads = {name: Load(board, row, Rate(), 0.5) for name, row in rows.items()}
    loads["a"].sent(1, 2.0, now=0.0)
    loads["c"].sent(2, 1.0, now=0.0)
    loads["c"].told(EngineLoad(4, 2, 0.5), own=0, turn_secs=0.5, now=0.0, until=9.0)
    for ids in (("a", "b", "c"), ("c", "a"), ("b",)):
        field = board.field(board.roster(ids, rows.__getitem__), [0] * len(ids), [0.0] * len(rows), 0.5)
        seen = {"a": (1.0, 1.5, 0.0, 0.0), "b": (0.0, 0.0, 0.0, 0.0), "c": (4.0, 0.5, 0.5, 0.5)}
        cells = zip(field.inflight, field.backlog_secs, field.held_secs, field.memory, strict=True)
        assert dict(zip(field.ids, cells, strict=True)) == {name: seen[name] for name in ids}
    # A row that is given to somebody new begins anew.
    board.clear(0, Rate())
    field = board.field(board.roster(("a", "b"), rows.__getitem__), [0, 0], [0.0] * len(rows), 0.5)
    assert (list(field.inflight), list(field.backlog_secs)) == ([0.0, 0.0], [0.0, 0.0])


@pytest.mark.parametrize("speaks", [True, False])
def test_a_worker_that_does_not_begin_gets_no_more(speaks: bool) -> None:
    placer = Placer(CacheMap(capacity=1_000, worker_blocks=1_000), Tuning())
    ask = Ask(serial=0, draws=(0.0, 0.0), tokens=900, head=1)
    shared = Prompt(keys=range(1, 9), tokens=900)

    def place(now: float) -> str:
        placement = placer.place(POLICIES["cache_aware"], ask, shared, ("a", "b"), now)
        if speaks or placement.worker_id != "a":
            placer.spoke(placement, now + 0.1)
            placer.ended(placement, now + 0.1)
        return placement.worker_id

    first = placer.place(POLICIES["cache_aware"], ask, shared, ("a",), 0.0)
    if speaks:
        placer.spoke(first, 0.2)
        placer.ended(first, 0.2)
    assert {place(30.0 + second) for second in range(20)} == ({"a"} if speaks else {"b"})


def test_nobody_waits_for_room_that_only_a_late_turn_can_make() -> None:
    load = Load(Board(), 0, Rate(), 0.5)
    assert load.room_at(0.5, 7.0) == 7.0
    load.sent(1, 2.0, now=0.0)
    assert [load.room_at(0.5, now) for now in (0.0, 1.5, 1.75)] == [1.5, 1.5, 1.75]
    assert load.room_at(0.5, 2.25) == math.inf
    load.sent(2, 1.0, now=0.0)
    # When the backlog could be 0.5, the first turn would be late by 0.5.
    assert load.room_at(0.5, 0.0) == math.inf
    load.spoke(1, now=2.0)
    assert load.room_at(0.5, 2.0) == 2.5
