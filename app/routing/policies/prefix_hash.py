"""Prompts that begin alike go to the same worker, unless it has too much to do."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate, affinity

# A worker is passed over when it has this many times the mean load, and this many turns more than the mean.
_FACTOR, _MARGIN = 1.25, 10


def prefix_hash(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The worker that the beginning of the prompt belongs to, among those that are not overloaded."""
    mean = sum(candidate.inflight for candidate in candidates) / len(candidates)
    limit = max(mean * _FACTOR, mean + _MARGIN)
    return max(
        (index for index, candidate in enumerate(candidates) if candidate.inflight <= limit),
        key=lambda index: affinity(ask.head, candidates[index].id),
    )
