"""The same key, the same worker, as long as the worker is there."""

from __future__ import annotations

from app.routing.policies.least_load import least_load
from app.routing.policies.values import Ask, Field, affinity


def consistent_hashing(ask: Ask, field: Field) -> int:
    """The worker the key belongs to; without a key, the least loaded one."""
    key = ask.key
    if key is None:
        return least_load(ask, field)
    return max(range(len(field.ids)), key=lambda index: affinity(key, field.ids[index]))
