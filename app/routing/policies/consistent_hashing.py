"""The same key, the same worker, as long as the worker is there."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.least_load import least_load
from app.routing.policies.values import Ask, Candidate, affinity


def consistent_hashing(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The worker the key belongs to; without a key, the least loaded one."""
    key = ask.key
    if key is None:
        return least_load(ask, candidates)
    return max(range(len(candidates)), key=lambda index: affinity(key, candidates[index].id))
