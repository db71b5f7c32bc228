"""Prompts that begin alike go to the same worker, unless it has too much to do."""

from __future__ import annotations

from app.routing.policies.values import Ask, Field, affinity

# A worker is passed over when it has this many times the mean load, and this many turns more than the mean.
_FACTOR, _MARGIN = 1.25, 10


def prefix_hash(ask: Ask, field: Field) -> int:
    """The worker that the beginning of the prompt belongs to, among those that are not overloaded."""
    mean = sum(field.inflight) / len(field.ids)
    limit = max(mean * _FACTOR, mean + _MARGIN)
    return max(
        (index for index, inflight in enumerate(field.inflight) if inflight <= limit),
        key=lambda index: affinity(ask.head, field.ids[index]),
    )
