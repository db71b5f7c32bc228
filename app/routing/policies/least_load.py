"""The least loaded worker."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate


def least_load(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The candidate with the fewest turns in flight; among equals, they take turns."""
    count = len(candidates)
    start = ask.serial % count
    return min(range(count), key=lambda index: (candidates[index].inflight, (index - start) % count))
