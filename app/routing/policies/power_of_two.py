"""The better of two random workers: nearly as even as looking at all, and no herd follows one stale number."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate


def power_of_two(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """Of two different candidates drawn at random, the one with fewer turns in flight."""
    count = len(candidates)
    first = int(ask.draws[0] * count)
    if count == 1:
        return first
    second = (first + 1 + int(ask.draws[1] * (count - 1))) % count
    return second if candidates[second].inflight < candidates[first].inflight else first
