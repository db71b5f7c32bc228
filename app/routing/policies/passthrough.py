"""The first worker that can."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate


def passthrough(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """Always the first candidate: the others are spares."""
    del ask, candidates
    return 0
