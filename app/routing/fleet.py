"""The fleet: leases a worker for a turn, and moves the turn to another one as long as nothing of it was shown.

What to do is decided elsewhere (policies, breaker, health); here it is done.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from app.responses.ports import ModelBackend, ModelInfo, RouteKey
from app.routing.breaker import Circuit
from app.routing.cache_events import CacheEvents
from app.routing.choosing import Chooser
from app.routing.eligible import check_model, targeted
from app.routing.engine_load import EngineLoad
from app.routing.health import HealthMonitor
from app.routing.load_monitor import LoadMonitor
from app.routing.ports import PartFate, World
from app.routing.registry import Registry, Worker
from app.routing.retrying import Retrying
from app.routing.settings import RoutingSettings
from app.routing.turns import LeasedTurn
from app.routing.watch import Streams, Watch
from app.turn.request import TurnRequest

# What an engine said of its load is believed until so many more answers should have come.
_LOAD_INTERVALS = 3


class WorkerFleet:
    """The `Fleet` port over model servers. `boot` awaits `ready()` and keeps `run()` as a task."""

    def __init__(self, settings: RoutingSettings, world: World) -> None:
        self.registry = Registry()
        self._settings = settings
        self._world = world
        self.retrying = Retrying(self.registry, settings, world)
        self.chooser = Chooser(self.registry, settings, world)
        self.desk = self.chooser.desk
        self._monitor = HealthMonitor(self.registry, settings, world, self)
        self._events = CacheEvents(
            self.registry,
            self.desk.caches,
            world.monotonic,
            ranks=settings.kv_ranks,
            by_tokens=settings.tokens == "engine",
        )
        self.chooser.distrust = self._events.distrust
        self._loads = LoadMonitor(
            self.registry, world, settings.load_monitor_interval_secs, self.desk.inflight, self._load_told
        )
        self._backends: dict[str, ModelBackend] = {}
        self._streams: defaultdict[str, Streams] = defaultdict(Streams)
        events = (*settings.kv_events, *[None] * len(settings.worker_urls))
        for url, address in zip(settings.worker_urls, events, strict=False):
            self.registry.add(url, now=world.monotonic(), api_key=settings.worker_api_key, kv_events=address)

    # ── life ──────────────────────────────────────────────────────────────────

    async def ready(self) -> None:
        """Probe all workers once; takes no longer than one probe may. Workers that do not answer stay known."""
        await self._monitor.probe_all()

    async def run(self) -> None:
        """Keep health, models, caches and loads up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._monitor.run())
            group.create_task(self._events.run())
            if self._settings.load_monitor_interval_secs:
                group.create_task(self._loads.run())

    async def add(self, url: str, *, api_key: str | None = None, kv_events: str | None = None) -> Worker:
        """Make a worker known and probe it. Raises `Conflict` when it is known already."""
        worker = self.admit(url, api_key=api_key, kv_events=kv_events)
        await self._monitor.probe(worker.id)
        return self.registry.get(worker.id)

    def admit(self, url: str, *, api_key: str | None = None, kv_events: str | None = None) -> Worker:
        """Make a worker known, to be probed at once by `run`. Raises `Conflict` when it is known already."""
        worker = self.registry.add(url, now=self._world.monotonic(), api_key=api_key, kv_events=kv_events)
        # A turn of a worker that was here before may have made one since, with another key.
        self._backends.pop(worker.id, None)
        self._monitor.changed()
        self._events.changed()
        return worker

    def worker(self, worker_id: str) -> Worker:
        """What is known of the worker. Raises `NotFound`."""
        return self.registry.get(worker_id)

    def put(self, worker: Worker) -> Worker:
        """What the operator wants of a known worker is different from now on. Raises `NotFound`."""
        known = self.registry.get(worker.id)
        self.registry.put(worker)
        if worker.api_key != known.api_key:
            self._backends.pop(worker.id, None)
        if worker.kv_events != known.kv_events:
            self._events.changed()
        if worker.draining:
            self.desk.evict(worker.id)
        return worker

    def remove(self, worker_id: str) -> Worker:
        """Forget the worker; turns it has go on. Raises `NotFound`."""
        worker = self.registry.remove(worker_id)
        self._backends.pop(worker_id, None)
        if not self._streams[worker_id]:
            del self._streams[worker_id]
        self.chooser.forget(worker_id)
        self._events.changed()
        self._monitor.suspect(worker_id)
        return worker

    # ── for the monitor ───────────────────────────────────────────────────────

    def heard(self, worker_id: str) -> int:
        """See `HealthListener`."""
        streams = self._streams.get(worker_id)
        return 0 if streams is None else streams.heard

    def went_down(self, worker_id: str) -> None:
        """See `HealthListener`."""
        self.desk.evict(worker_id)
        streams = self._streams.get(worker_id)
        if streams is not None:
            streams.down()

    def came_back(self, worker_id: str) -> None:
        """See `HealthListener`. If it was restarted, its cache is empty, and what failed before says nothing of it."""
        self.desk.restarted(worker_id)
        self.chooser.ledger.reset(worker_id)

    def _load_told(self, worker_id: str, load: EngineLoad, own: int) -> None:
        if self.registry.snapshot.get(worker_id) is None:
            return
        self.desk.told(worker_id, load, own, self._settings.load_monitor_interval_secs * _LOAD_INTERVALS)

    def inflight(self, worker_id: str) -> int:
        """Turns the worker has from this fleet."""
        return self.chooser.ledger.inflight(worker_id)

    def circuit(self, worker_id: str) -> Circuit:
        """Whether the worker's circuit breaker lets turns through."""
        return self.chooser.ledger.breaker(worker_id).circuit

    # ── the Fleet port ────────────────────────────────────────────────────────

    def models(self, tenant: str) -> Sequence[ModelInfo]:
        """See `Fleet`. A model that several workers serve is shown once."""
        del tenant
        found: dict[str, ModelInfo] = {}
        for worker in self.registry.snapshot.workers:
            if worker.healthy:
                for info in worker.models:
                    found.setdefault(info.id, info)
        return [found[model] for model in sorted(found)]

    def ensure_model(self, tenant: str, model: str, target: str | None = None) -> None:
        """See `Fleet`."""
        del tenant
        snapshot = self.registry.snapshot
        check_model(snapshot, model, self._world.monotonic(), self._settings.worker_startup_timeout_secs)
        if target is not None:
            targeted(snapshot, target, model)

    @asynccontextmanager
    async def lease(self, key: RouteKey, request: TurnRequest) -> AsyncGenerator[ModelBackend, None]:
        """See `Fleet`. A failed turn moves on to other workers by itself until its first event has come.

        One that finds all workers down waits for one of them for a while.
        """
        for pause in self.retrying.pauses(request.model):
            await asyncio.sleep(pause)
        self.ensure_model(key.tenant, request.model)
        turn = LeasedTurn(self, key, request, await self.chooser.read(key, request))
        try:
            yield turn
        finally:
            await turn.close()

    # ── for the turns ─────────────────────────────────────────────────────────

    def backend(self, worker: Worker) -> ModelBackend:
        """The backend that speaks to the worker."""
        backend = self._backends.get(worker.id)
        if backend is None:
            backend = self._backends[worker.id] = self._world.connect(worker.url, api_key=worker.api_key)
        return backend

    def suspect(self, worker_id: str) -> None:
        """The worker failed a turn: look after it soon."""
        self._monitor.suspect(worker_id)

    def parted(self, model: str, became: PartFate) -> None:
        """See `Surroundings`."""
        self._world.parted(model, became)

    def watch(self, worker: Worker) -> Watch:
        """A watch that hears of it when the worker goes down. To be closed."""
        return self._streams[worker.id].watch(self._settings.stream_stall_secs)
