"""Which of the workers that can serve a turn may be given it now. Pure.

A worker that has just come up is cold, and often not yet what it seems (compiling, loading): for its first minute it
gets only a share of what the others have, so that a fleet is never swamped by its own newcomer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.routing.registry import Worker


def spare_newcomers(
    workers: Sequence[Worker], inflight: Callable[[str], int], now: float, warmup_secs: float, share: float
) -> Sequence[Worker]:
    """`workers` without newcomers that have their share: of the mean load of the others, and one turn at least."""
    settled = [worker for worker in workers if now - worker.healthy_at >= warmup_secs]
    if not settled or len(settled) == len(workers):
        return workers
    room = max(share * sum(inflight(worker.id) for worker in settled) / len(settled), 1.0)
    return [worker for worker in workers if now - worker.healthy_at >= warmup_secs or inflight(worker.id) < room]
