"""What is learned of how fast a worker reads."""

from __future__ import annotations

import random

import pytest

from app.routing.cachemap import CacheMap
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.routing.rates import Rate

TRUTH = Rate(start=0.01, scale=0.5)


def waited(new: int, rng: random.Random) -> float:
    """The seconds of a prompt that has to wait for the step that is under way."""
    return TRUTH.secs(new, 0) + rng.uniform(0.0, 0.12)


def learned(prompts: list[int], seed: int = 1) -> Rate:
    rng, rate = random.Random(seed), Rate()
    for new in prompts:
        rate = rate.observed(new, 0, waited(new, rng))
    return rate


def test_long_prompts_tell_how_long_long_prompts_take() -> None:
    assert learned([20_000] * 60).secs(100_000, 0) == pytest.approx(TRUTH.secs(100_000, 0), rel=0.15)


def test_short_prompts_tell_how_long_short_prompts_take() -> None:
    assert learned([200] * 300).secs(200, 0) == pytest.approx(TRUTH.secs(200, 0) + 0.06, rel=0.5)


def test_a_worker_does_not_look_fast_because_short_prompts_were_slow_before() -> None:
    rng, rate = random.Random(1), learned([20_000] * 60)
    before = rate.secs(100_000, 0)
    for _ in range(20):
        rate = rate.observed(300, 0, waited(300, rng))
        rate = rate.observed(700, 0, TRUTH.secs(700, 0))
    assert rate.secs(100_000, 0) == pytest.approx(before, rel=0.2)


def test_one_odd_wait_does_not_turn_the_rate_over() -> None:
    before = learned([20_000] * 60)
    for secs in (1e-9, 3_600.0):
        after = before.observed(20_000, 0, secs)
        assert 0.7 < after.secs(20_000, 0) / before.secs(20_000, 0) < 1.4


def test_until_a_worker_was_seen_it_is_as_quick_as_the_others() -> None:
    """Three quick machines, of which two were seen so far, and a slow one that is seen at last."""
    placer = Placer(CacheMap(capacity=1_000, worker_blocks=1_000), Tuning())
    now = 0.0

    def read(worker: str, secs: float) -> None:
        nonlocal now
        now += 100.0
        placement = placer.place(POLICIES["cache_aware"], Ask(tokens=10_000), Prompt(tokens=10_000), (worker,), now)
        placer.spoke(placement, now + secs)

    def scales() -> list[float]:
        return [placer.load(each).reckoned.scale for each in ("seen", "also", "new", "slow")]

    scales()
    quick = Rate().secs(10_000, 0) / 3
    for worker in ("seen", "also") * 6:
        read(worker, quick)
    assert len(set(scales())) == 1
    assert scales()[0] < 0.5
    # Its first prompt teaches from there, and not from what was thought of all at first.
    read("new", quick)
    assert placer.load("new").rate.scale < 0.5
    for _ in range(20):
        read("slow", 20 * quick)
        read("seen", quick)
    assert scales()[3] > 10 * scales()[0]
