"""The better of two random workers: nearly as even as looking at all, and no herd follows one stale number."""

from __future__ import annotations

from app.routing.policies.values import Ask, Field


def power_of_two(ask: Ask, field: Field) -> int:
    """Of two different workers drawn at random, the one with fewer turns in flight."""
    count = len(field.ids)
    first = int(ask.draws[0] * count)
    if count == 1:
        return first
    second = (first + 1 + int(ask.draws[1] * (count - 1))) % count
    return second if field.inflight[second] < field.inflight[first] else first
