"""Uniformly at random."""

from __future__ import annotations

from app.routing.policies.values import Ask, Field


def random_worker(ask: Ask, field: Field) -> int:
    """Any worker, all with the same chance."""
    return int(ask.draws[0] * len(field.ids))
