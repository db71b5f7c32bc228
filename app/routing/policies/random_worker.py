"""Uniformly at random."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate


def random_worker(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """Any candidate, all with the same chance."""
    return int(ask.draws[0] * len(candidates))
