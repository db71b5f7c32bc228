"""The first worker that can."""

from __future__ import annotations

from app.routing.policies.values import Ask, Field


def passthrough(ask: Ask, field: Field) -> int:
    """Always the first worker: the others are spares."""
    del ask, field
    return 0
