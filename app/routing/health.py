"""Keeps the registry true: probes every worker, and asks it which models it serves.

`judge` decides what probes mean; the monitor only performs them. A worker that was never reached counts as healthy
after its first good probe; one that failed must convince again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from app.routing.ports import World
from app.routing.registry import Registry, Worker
from app.routing.settings import RoutingSettings
from app.turn.errors import GatewayError

# An unhealthy or suspected worker is looked at this often, so that it is not missed longer than need be.
_EAGER_SECS = 1.0


class Pulse(Struct, frozen=True):
    """Probes in a row that went well or badly, and whether one ever went well."""

    good: int = 0
    bad: int = 0
    reached: bool = False


def judge(pulse: Pulse, ok: bool, healthy: bool, settings: RoutingSettings) -> tuple[Pulse, bool]:
    """The pulse after a probe, and whether the worker, so far `healthy` or not, is healthy now."""
    if ok:
        after = Pulse(pulse.good + 1, 0, reached=True)
        return after, healthy or not pulse.reached or after.good >= settings.health_success_threshold
    after = Pulse(0, pulse.bad + 1, pulse.reached)
    return after, healthy and after.bad < settings.health_failure_threshold


class HealthListener(Protocol):
    """Told when a worker became healthy or ceased to be."""

    def __call__(self, worker_id: str, *, healthy: bool) -> None: ...


class HealthMonitor:
    """Probes the workers of a registry for as long as it runs."""

    def __init__(
        self, registry: Registry, settings: RoutingSettings, world: World, on_change: HealthListener | None = None
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._world = world
        self._on_change = on_change
        self._pulses: dict[str, Pulse] = {}
        self._listed_at: dict[str, float] = {}
        self._pokes: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Workers were added or removed."""
        self._changed.set()

    def suspect(self, worker_id: str) -> None:
        """A turn failed at the worker: probe it soon rather than at the next interval."""
        poke = self._pokes.get(worker_id)
        if poke is not None:
            poke.set()

    async def probe_all(self) -> None:
        """Probe every worker once, side by side."""
        await asyncio.gather(*(self.probe(worker.id) for worker in self._registry.snapshot.workers))

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for worker in self._registry.snapshot.workers:
                    if worker.id not in self._pokes:
                        self._pokes[worker.id] = asyncio.Event()
                        group.create_task(self._watch(worker.id, self._pokes[worker.id]))
                await self._changed.wait()

    async def _watch(self, worker_id: str, poke: asyncio.Event) -> None:
        while (worker := self._registry.snapshot.get(worker_id)) is not None:
            pulse = self._pulses.get(worker_id)
            if pulse is None:
                await self.probe(worker_id)
                continue
            sound = worker.healthy and pulse.bad == 0
            pause = self._settings.health_check_interval_secs
            try:
                async with asyncio.timeout(pause if sound else min(pause, _EAGER_SECS)):
                    await poke.wait()
            except TimeoutError:
                pass
            poke.clear()
            await self.probe(worker_id)
        for memory in (self._pulses, self._listed_at, self._pokes):
            memory.pop(worker_id, None)

    async def probe(self, worker_id: str) -> None:
        """Probe the worker once and write down what that means."""
        worker = self._registry.snapshot.get(worker_id)
        if worker is None:
            return
        ok, catalog = await self._look(worker)
        now = self._world.monotonic()
        worker = self._registry.snapshot.get(worker_id)
        if worker is None:
            return
        pulse = self._pulses.get(worker_id, Pulse())
        self._pulses[worker_id], healthy = judge(pulse, ok, worker.healthy, self._settings)
        if catalog is not None:
            self._listed_at[worker_id] = now
            worker = replace(worker, catalog=catalog.catalog, models=catalog.models)
        if not ok:
            # It may come back as something else.
            self._listed_at.pop(worker_id, None)
        came_up = healthy and not worker.healthy
        self._registry.put(replace(worker, healthy=healthy, healthy_at=now if came_up else worker.healthy_at))
        if healthy is not worker.healthy and self._on_change is not None:
            self._on_change(worker_id, healthy=healthy)

    async def _look(self, worker: Worker) -> tuple[bool, Worker | None]:
        listed_at = self._listed_at.get(worker.id)
        now = self._world.monotonic()
        # One that was removed and came back at once is a new one, which its predecessor's list says nothing of.
        due = (
            listed_at is None
            or worker.catalog == "unknown"
            or now - listed_at >= self._settings.model_discovery_interval_secs
        )
        try:
            async with asyncio.timeout(self._settings.health_check_timeout_secs):
                if not await self._world.probe.healthy(worker.url):
                    return False, None
                return True, await self._list(worker) if due else None
        except (TimeoutError, GatewayError):
            return False, None

    async def _list(self, worker: Worker) -> Worker:
        try:
            models = await self._world.probe.models(worker.url)
        except GatewayError as error:
            if error.status != 404:
                raise
            models = None
        if models is None:
            return replace(worker, catalog="any", models=())
        return replace(worker, catalog="listed", models=tuple(models))
