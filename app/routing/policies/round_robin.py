"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate


def round_robin(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The candidates in turn."""
    return ask.serial % len(candidates)
