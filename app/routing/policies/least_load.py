"""The least loaded worker."""

from __future__ import annotations

from app.routing.policies.values import Ask, Field

# A turn may have to wait for memory where nearly none is left, however few turns hold it.
_FULL = 0.95


def least_load(ask: Ask, field: Field) -> int:
    """The worker with the fewest turns in flight among those that have memory; among equals, they take turns."""
    count = len(field.ids)
    start = ask.serial % count

    def rank(index: int) -> tuple[bool, float, int]:
        return field.memory[index] >= _FULL, field.inflight[index], (index - start) % count

    return min(range(count), key=rank)
