"""Sticky: a key stays where it first went."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.least_load import least_load
from app.routing.policies.values import Ask, Candidate


def manual(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The worker of the key's last turn while it can take turns; else, and without a key, the least loaded one."""
    for index, candidate in enumerate(candidates):
        if candidate.id == ask.stuck:
            return index
    return least_load(ask, candidates)
