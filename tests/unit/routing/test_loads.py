"""What a worker is thought to have to do: it runs down with the clock, and grows again when the worker is late."""

from __future__ import annotations

import pytest

from app.routing.cachemap import CacheMap
from app.routing.loads import Load
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask


def test_it_runs_down_and_what_is_late_keeps_others_away() -> None:
    load = Load(aging=0.5)
    load.sent(1, 2.0, now=10.0)
    assert [load.backlog(now) for now in (10.0, 11.0, 12.0, 15.0)] == [2.0, 1.0, 0.0, 3.0]
    load.spoke(1, now=15.0)
    assert [load.backlog(now) for now in (15.0, 99.0)] == [0.0, 0.0]


def test_what_is_late_counts_as_no_more_than_all_that_was_sent_once_one_spoke() -> None:
    load = Load(aging=0.5)
    load.sent(1, 2.0, now=0.0)
    load.sent(2, 1.0, now=0.0)
    load.spoke(1, now=30.0)
    assert load.backlog(30.0) == 1.0


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
