"""The fleet: leases a worker for a turn, and moves the turn to another one as long as nothing of it was shown.

What to do is decided elsewhere (policies, breaker, health); here it is done.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from app.responses.ports import ModelBackend, ModelInfo, RouteKey
from app.routing.breaker import Circuit
from app.routing.cache_events import CacheEvents
from app.routing.choosing import Chooser
from app.routing.eligible import RETRY_AFTER_SECS, targeted
from app.routing.engine_load import EngineLoad
from app.routing.health import HealthMonitor
from app.routing.load_monitor import LoadMonitor
from app.routing.ports import World
from app.routing.registry import Registry, Snapshot, Worker
from app.routing.settings import RoutingSettings
from app.routing.turns import LeasedTurn
from app.routing.watch import Watch
from app.turn.errors import Failure, NotFound, NoWorker
from app.turn.request import TurnRequest

# A worker that is down but still sends gets this long between two events before its turns are ended.
_DOWN_STALL_SECS = 5.0
# What an engine said of its load is believed until so many more answers should have come.
_LOAD_INTERVALS = 3


class WorkerFleet:
    """The `Fleet` port over model servers. `boot` awaits `ready()` and keeps `run()` as a task."""

    def __init__(self, settings: RoutingSettings, world: World) -> None:
        self.registry = Registry()
        self._settings = settings
        self._world = world
        self.chooser = Chooser(self.registry, settings, world)
        self.desk = self.chooser.desk
        self._monitor = HealthMonitor(self.registry, settings, world, self._health_changed)
        self._events = CacheEvents(self.registry, self.desk.caches, world.monotonic, settings.kv_ranks)
        self.chooser.distrust = self._events.distrust
        self._loads = LoadMonitor(
            self.registry, world, settings.load_monitor_interval_secs, self.desk.inflight, self._load_told
        )
        self._backends: dict[str, ModelBackend] = {}
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)
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

    def drain(self, worker_id: str) -> Worker:
        """No new turns for the worker; those that wait for it go elsewhere. Raises `NotFound`."""
        return self.put(replace(self.worker(worker_id), draining=True))

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
        self.chooser.forget(worker_id)
        self._events.changed()
        self._monitor.suspect(worker_id)
        return worker

    def _health_changed(self, worker_id: str, *, healthy: bool) -> None:
        if healthy:
            # It may have been restarted, and then its cache is empty.
            self.desk.restarted(worker_id)
            return
        self.desk.evict(worker_id)
        for watch in self._watches.get(worker_id, ()):
            # Who has heard nothing yet goes elsewhere; who has is ended soon, unless the worker goes on after all.
            watch.hurry(_DOWN_STALL_SECS if watch.spoken else 0.0)

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
        """See `Fleet`. A failed turn moves on to other workers by itself until its first event has come."""
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

    def watch(self, worker: Worker) -> Watch:
        """A watch that hears of it when the worker goes down."""
        watch = Watch(self._settings.stream_stall_secs)
        self._watches[worker.id].add(watch)
        return watch

    def unwatch(self, worker: Worker, watch: Watch) -> None:
        """The watch is not needed any more."""
        watch.close()
        watches = self._watches[worker.id]
        watches.discard(watch)
        if not watches:
            del self._watches[worker.id]

    def may_retry(self, failure: Failure, retries: int) -> bool:
        """Whether a turn that failed so, after `retries` retries, is to be tried again."""
        return retries < self._settings.retry_max_retries and self._world.may_retry_elsewhere(failure)

    def backoff_secs(self, returns: int) -> float:
        """The pause before a turn goes back to a worker that failed it, with jitter; `returns` counts such pauses."""
        settings = self._settings
        pause = min(settings.retry_initial_backoff_ms * 2**returns, settings.retry_max_backoff_ms) / 1000
        return pause * (0.5 + self._world.random.random() / 2)


def check_model(snapshot: Snapshot, model: str, now: float, startup_secs: float) -> None:
    """Raise `NotFound` when it is certain that nobody serves `model`, `NoWorker` when nobody can now."""
    serving = [worker for worker in snapshot.workers if worker.may_serve(model)]
    if any(worker.healthy and not worker.draining for worker in serving):
        return
    if serving:
        raise NoWorker(f"No worker that serves '{model}' is up.", retry_after=RETRY_AFTER_SECS)
    unknown = [worker for worker in snapshot.workers if worker.catalog == "unknown"]
    listed = len(unknown) < len(snapshot.workers)
    if not listed or any(now - worker.added_at < startup_secs for worker in unknown):
        raise NoWorker(f"No worker that is up serves '{model}'.", retry_after=RETRY_AFTER_SECS)
    raise NotFound(f"The model '{model}' does not exist.", code="model_not_found", param="model")
