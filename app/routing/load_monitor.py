"""Asks the workers' engines how loaded they are, for a fleet that is not alone with its workers.

What this gateway sent it knows better than any poll. What others sent (other gateways, clients of their own) shows only
here: an engine that has more requests than we gave it has somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from app.routing.engine_load import EngineLoad, parse
from app.routing.ports import World
from app.routing.registry import Registry, Worker
from app.turn.errors import GatewayError

# Where engines have their metrics: all but `trtllm-serve` in the first place.
_PATHS = ("/metrics", "/prometheus/metrics")
# One that has none is asked again after so long, for it may have been restarted with other flags.
_SILENT_SECS = 60.0
_TIMEOUT_SECS = 2.0


class LoadListener(Protocol):
    """Told what an engine said, and how many turns it had from this gateway at most while it was asked."""

    def __call__(self, worker_id: str, load: EngineLoad, own: int) -> None: ...


class LoadMonitor:
    """Asks every healthy worker of a registry each `interval_secs`. `own` counts the turns a worker has from us."""

    def __init__(
        self, registry: Registry, world: World, interval_secs: float, own: Callable[[str], int], heard: LoadListener
    ) -> None:
        self._registry = registry
        self._world = world
        self._interval_secs = interval_secs
        self._own = own
        self._heard = heard
        self._paths: dict[str, str] = {}
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask_all()
            await asyncio.sleep(self._interval_secs)

    async def ask_all(self) -> None:
        """Ask every worker once, side by side."""
        workers, now = self._registry.snapshot.workers, self._world.monotonic()
        for memory in (self._paths, self._not_before):
            for worker_id in memory.keys() - {worker.id for worker in workers}:
                del memory[worker_id]
        due = [each for each in workers if each.healthy and self._not_before.get(each.id, 0.0) <= now]
        await asyncio.gather(*(self._ask(worker) for worker in due))

    async def _ask(self, worker: Worker) -> None:
        known = self._paths.get(worker.id)
        for path in _PATHS if known is None else (known,):
            before = self._own(worker.id)
            try:
                async with asyncio.timeout(_TIMEOUT_SECS):
                    text = await self._world.probe.metrics(worker.url, path)
            except (TimeoutError, GatewayError):
                # Whether it is well is for others to find out.
                return
            load = None if text is None else parse(text)
            if load is not None:
                self._paths[worker.id] = path
                # A turn that came or went meanwhile may be counted or not, and is not to be taken for somebody else's.
                self._heard(worker.id, load, max(before, self._own(worker.id)))
                return
        self._paths.pop(worker.id, None)
        self._not_before[worker.id] = self._world.monotonic() + _SILENT_SECS
