"""Requests that come a little later, by chance."""

from __future__ import annotations

from bench.routing import lateness


def test_a_seed_is_the_same_chance_each_time_and_no_seed_is_none():
    one, again, other, none = lateness(1), lateness(1), lateness(2), lateness(None)
    ones = [one() for _ in range(50)]
    assert ones == [again() for _ in range(50)]
    assert ones != [other() for _ in range(50)]
    assert all(0.0 <= secs <= 0.1 for secs in ones)
    assert [none() for _ in range(3)] == [0.0, 0.0, 0.0]
