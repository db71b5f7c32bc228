"""Each policy as the function it is."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from msgspec.structs import replace

from app.routing.policies import POLICIES, Ask
from app.routing.rates import Rate
from tests.unit.routing.fields import a_field


def test_every_policy_stays_in_range_and_takes_the_only_one():
    for policy in POLICIES.values():
        for serial in range(5):
            for draw in (0.0, 0.5, 0.999999):
                ask = Ask(serial=serial, draws=(draw, draw))
                assert policy(ask, a_field(3)) == 0
                assert 0 <= policy(ask, a_field(3, 1, 2)) < 3


def test_round_robin_takes_them_in_turn():
    assert [POLICIES["round_robin"](Ask(serial=n), a_field(9, 0, 0)) for n in range(4)] == [0, 1, 2, 0]


def test_random_reaches_all_evenly():
    counts = Counter(POLICIES["random"](Ask(draws=(n / 99, 0.0)), a_field(0, 0, 0)) for n in range(99))
    assert set(counts.values()) == {33}


def test_power_of_two_prefers_the_less_loaded_of_two_different_ones():
    ask = Ask(draws=(0.0, 0.0))
    assert POLICIES["power_of_two"](ask, a_field(5, 1, 0)) == 1
    assert POLICIES["power_of_two"](ask, a_field(1, 5, 0)) == 0
    assert POLICIES["power_of_two"](Ask(draws=(0.99, 0.99)), a_field(0, 9, 9)) in (2, 1)


def test_least_load_takes_the_least_and_rotates_among_equals():
    assert POLICIES["least_load"](Ask(serial=0), a_field(2, 1, 1)) == 1
    assert {POLICIES["least_load"](Ask(serial=n), a_field(2, 1, 1)) for n in range(3)} == {1, 2}


def test_cache_aware_spares_those_who_write_but_not_for_any_price():
    ask = Ask(tokens=50_000)
    few, many, crowds = (replace(a_field(*counts), held_secs=(2.0, 0.0)) for counts in ((0, 0), (0, 30), (100, 900)))
    assert POLICIES["cache_aware"](ask, few) == 1
    assert POLICIES["cache_aware"](ask, many) == 0
    # Where all have many, the queue decides.
    assert POLICIES["cache_aware"](ask, crowds) == 1


def test_cache_aware_takes_one_that_does_not_get_to_read_for_a_busy_one():
    # Both have spent a third of the time reading, and one has 8 seconds before it. It counts for more than these.
    ask, field = Ask(tokens=50_000), replace(a_field(0, 20), held_secs=(8.0, 0.0), busy=(0.3, 0.3))
    assert POLICIES["cache_aware"](ask, replace(field, held_secs=(0.0, 0.0), backlog_secs=(1.0, 0.0))) == 0
    assert POLICIES["cache_aware"](ask, field) == 0
    assert POLICIES["cache_aware"](ask, replace(field, held_secs=(9.0, 0.0))) == 1


def test_cache_aware_counts_what_is_read_in_parts_as_far_as_the_turn_is_longer():
    field = replace(a_field(0, 0), rest_secs=(60.0, 0.0), cached=(19_000, 0))
    # A short one whose context is there passes; a long one would not.
    assert POLICIES["cache_aware"](Ask(tokens=20_000), field) == 0
    assert POLICIES["cache_aware"](Ask(tokens=20_000), replace(field, cached=(0, 0))) == 1


def test_cache_aware_keeps_to_what_is_cached_while_many_wait_everywhere():
    ask = Ask(tokens=20_000)
    # The one that holds nearly all of it has 30 seconds more to read; anew it takes about 3.
    for held, chosen in ((0.0, 1), (60.0, 0)):
        field = replace(a_field(0, 0), held_secs=(held + 30.0, held), cached=(19_000, 0))
        assert POLICIES["cache_aware"](ask, field) == chosen


def test_cache_aware_decides_alike_whether_or_not_it_looks_at_all():
    rng, rates = random.Random(7), (Rate(), Rate(start=0.1, scale=0.5), Rate(start=0.01, scale=2.0))
    sooner = Counter[bool]()
    for serial in range(3000):
        workers, share, tokens = rng.choice((1, 2, 9)), rng.random(), rng.choice((300, 5_000, 90_000))

        def some(most: float, workers: int = workers, share: float = share) -> list[float]:
            return [rng.random() * most if rng.random() < share else 0.0 for _ in range(workers)]

        field = replace(
            a_field(*some(40)),
            backlog_secs=some(3),
            held_secs=some(9),
            rest_secs=some(9),
            cached=[int(each) for each in some(tokens)],
            rates=[rng.choice(rates) for _ in range(workers)],
            quickest=Rate(start=0.01, scale=0.5),
            busy=some(1),
            regret=some(1),
        )
        ask, seen = Ask(serial=serial, tokens=tokens), Columns(field.inflight)
        # Beside one that reads in no time there is always somebody to look at.
        all_looked_at = POLICIES["cache_aware"](ask, replace(field, quickest=Rate(start=0.0, scale=0.0)))
        assert POLICIES["cache_aware"](ask, replace(field, inflight=seen)) == all_looked_at
        sooner[not seen.whole] += 1
    assert min(sooner[True], sooner[False]) > 100


class Columns(list[float]):
    """Remembers whether it was taken as a whole."""

    whole = False

    def __getitem__(self, which: Any) -> Any:
        self.whole = self.whole or which == slice(None)
        return super().__getitem__(which)


def test_cache_aware_lets_no_queue_grow_beside_a_worker_that_has_nothing_to_do():
    ask = Ask(tokens=100_000)
    for count in (2, 3, 8):
        held = (*[400.0] * (count - 1), 0.0)
        field = replace(a_field(*[0] * count), held_secs=held, cached=(*[99_000] * (count - 1), 0))
        assert POLICIES["cache_aware"](ask, field) == count - 1
