"""One after the other."""

from __future__ import annotations

from app.routing.policies.values import Ask, Field


def round_robin(ask: Ask, field: Field) -> int:
    """The workers in turn."""
    return ask.serial % len(field.ids)
