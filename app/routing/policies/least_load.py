"""The least loaded worker."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate

# A turn may have to wait for memory where nearly none is left, however few turns hold it.
_FULL = 0.95


def least_load(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The candidate with the fewest turns in flight among those that have memory; among equals, they take turns."""
    count = len(candidates)
    start = ask.serial % count

    def rank(index: int) -> tuple[bool, float, int]:
        worker = candidates[index]
        return worker.memory >= _FULL, worker.inflight, (index - start) % count

    return min(range(count), key=rank)
