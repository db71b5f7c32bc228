"""Sticky: a key stays where it first went."""

from __future__ import annotations

from app.routing.policies.least_load import least_load
from app.routing.policies.values import Ask, Field


def manual(ask: Ask, field: Field) -> int:
    """The worker of the key's last turn while it can take turns; else, and without a key, the least loaded one."""
    for index, worker_id in enumerate(field.ids):
        if worker_id == ask.stuck:
            return index
    return least_load(ask, field)
