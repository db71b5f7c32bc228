"""The fleet: leases a worker for a turn, and moves the turn to another one as long as nothing of it was shown.

What to do is decided elsewhere (policies, breaker, health); here it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.responses.ports import ModelBackend, ModelInfo, RouteKey
from app.routing.affinities import Affinities
from app.routing.breaker import Circuit, Event, Rules
from app.routing.cachemap import CacheMap
from app.routing.desk import Desk
from app.routing.health import HealthMonitor
from app.routing.ledger import Ledger
from app.routing.loads import Placement
from app.routing.placer import Prompt, Tuning
from app.routing.policies import POLICIES, READS_PROMPTS, Ask
from app.routing.ports import Seen, World
from app.routing.prompts import PromptBook
from app.routing.registry import Registry, Snapshot, Worker
from app.routing.settings import RoutingSettings
from app.turn.errors import Failure, GatewayError, InvalidRequest, NotFound, NoWorker
from app.turn.events import TurnDone, TurnEvent, TurnFailed
from app.turn.request import TurnRequest

_RETRY_AFTER_SECS = 2.0
_SILENT = TurnFailed(Failure(502, "upstream_stream_cut", "The worker's answer ended before it began."))


class WorkerFleet:
    """The `Fleet` port over model servers. `boot` awaits `ready()` and keeps `run()` as a task."""

    def __init__(self, settings: RoutingSettings, world: World) -> None:
        self.registry = Registry()
        self._settings = settings
        self._world = world
        self._ledger = Ledger(_rules(settings))
        self._monitor = HealthMonitor(self.registry, settings, world, self._health_changed)
        caches = CacheMap(capacity=settings.cache_index_blocks, worker_blocks=settings.cache_worker_blocks)
        self.desk = Desk(caches, Tuning(hold_secs=settings.hold_secs, aging=settings.hold_aging), world.monotonic)
        self._prompts = PromptBook(block_bytes=settings.cache_block_bytes)
        self._stuck = Affinities(settings.sticky_most_keys)
        self._backends: dict[str, ModelBackend] = {}
        self._tells_cached: set[str] = set()
        self._serial = 0
        for url in settings.worker_urls:
            self.registry.add(url, now=world.monotonic(), api_key=settings.worker_api_key)

    # ── life ──────────────────────────────────────────────────────────────────

    async def ready(self) -> None:
        """Probe all workers once; takes no longer than one probe may. Workers that do not answer stay known."""
        await self._monitor.probe_all()

    async def run(self) -> None:
        """Keep health and models up to date until cancelled."""
        await self._monitor.run()

    async def add(self, url: str, *, api_key: str | None = None) -> Worker:
        """Make a worker known and probe it. Raises `Conflict` when it is known already."""
        worker = self.registry.add(url, now=self._world.monotonic(), api_key=api_key)
        await self._monitor.probe(worker.id)
        self._monitor.changed()
        return self.registry.get(worker.id)

    def drain(self, worker_id: str) -> Worker:
        """No new turns for the worker; those that wait for it go elsewhere. Raises `NotFound`."""
        worker = self.registry.drain(worker_id)
        self.desk.evict(worker_id)
        return worker

    def remove(self, worker_id: str) -> Worker:
        """Forget the worker; turns it has go on. Raises `NotFound`."""
        worker = self.registry.remove(worker_id)
        self._backends.pop(worker_id, None)
        self._ledger.reset(worker_id)
        self.desk.forget(worker_id)
        self._tells_cached.discard(worker_id)
        self._monitor.suspect(worker_id)
        return worker

    def _health_changed(self, worker_id: str, *, healthy: bool) -> None:
        if healthy:
            # It may have been restarted, and then its cache is empty.
            self.desk.restarted(worker_id)
        else:
            self.desk.evict(worker_id)

    def inflight(self, worker_id: str) -> int:
        """Turns the worker has from this fleet."""
        return self._ledger.inflight(worker_id)

    def circuit(self, worker_id: str) -> Circuit:
        """Whether the worker's circuit breaker lets turns through."""
        return self._ledger.breaker(worker_id).circuit

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

    def ensure_model(self, tenant: str, model: str) -> None:
        """See `Fleet`."""
        del tenant
        check_model(self.registry.snapshot, model, self._world.monotonic(), self._settings.worker_startup_timeout_secs)

    @asynccontextmanager
    async def lease(self, key: RouteKey, request: TurnRequest) -> AsyncGenerator[ModelBackend, None]:
        """See `Fleet`. A failed turn moves on to other workers by itself until its first event has come."""
        self.ensure_model(key.tenant, request.model)
        turn = _Turn(self, key, request)
        try:
            yield turn
        finally:
            await turn.close()

    # ── for the turns ─────────────────────────────────────────────────────────

    def place(self, key: RouteKey, prompt: Prompt, model: str, tried: frozenset[str]) -> tuple[Worker, Placement]:
        """Choose a worker and count the turn. Workers in `tried` come into question only when there is no other.

        Raises `NoWorker`, or `InvalidRequest` for a target that is not known.
        """
        now = self._world.monotonic()
        usable = [worker for worker in self._serving(key, model) if self._ledger.admits(worker.id, now)]
        if not usable:
            raise NoWorker(f"No worker can serve '{model}' now.", retry_after=_RETRY_AFTER_SECS)
        workers = {worker.id: worker for worker in usable if worker.id not in tried} or {
            worker.id: worker for worker in usable
        }
        name = self.policy(model)
        affinity = key.affinity or key.conversation
        ask = Ask(
            serial=self._serial,
            draws=(self._world.random.random(), self._world.random.random()),
            tokens=prompt.tokens,
            head=prompt.keys[0] if prompt.keys else 0,
            key=affinity,
            stuck=self._stuck.get(affinity),
        )
        self._serial += 1
        placement = self.desk.place(POLICIES[name], ask, prompt, tuple(workers), hold=name == "cache_aware")
        self._ledger.begin(placement.worker_id, now)
        self._stuck.put(affinity, placement.worker_id)
        return workers[placement.worker_id], placement

    def policy(self, model: str) -> str:
        """The name of the policy for the model."""
        return self._settings.model_policies.get(model, self._settings.policy)

    def read(self, key: RouteKey, request: TurnRequest) -> Prompt:
        """The prompt, as far as the model's policy asks for it."""
        if self.policy(request.model) not in READS_PROMPTS:
            return Prompt()
        return self._prompts.read(request, run=key.run, conversation=key.conversation)

    def _serving(self, key: RouteKey, model: str) -> list[Worker]:
        workers = self.registry.snapshot.workers
        if key.target is not None:
            target = self.registry.snapshot.get(key.target.rstrip("/"))
            if target is None:
                raise InvalidRequest(f"Worker '{key.target}' is not known.", code="worker_not_found")
            workers = (target,)
        return [worker for worker in workers if worker.healthy and not worker.draining and worker.may_serve(model)]

    def backend(self, worker: Worker) -> ModelBackend:
        """The backend that speaks to the worker."""
        backend = self._backends.get(worker.id)
        if backend is None:
            backend = self._backends[worker.id] = self._world.connect(worker.url, api_key=worker.api_key)
        return backend

    def ended(self, placement: Placement, outcome: Event) -> None:
        """A placed turn is over."""
        self._ledger.end(placement.worker_id, outcome, self._world.monotonic())
        if self.registry.snapshot.get(placement.worker_id) is not None:
            self.desk.ended(placement)
        if outcome == "bad":
            self._monitor.suspect(placement.worker_id)

    def learned(self, model: str, prompt: Prompt, placement: Placement, done: TurnDone) -> None:
        """What the engine counted, beside what was thought."""
        usage = done.usage
        self._prompts.counted(model, prompt, usage.input_tokens)
        if usage.cached_tokens:
            self._tells_cached.add(placement.worker_id)
        # An engine that never says what it found cached must not make us believe that it finds nothing.
        if prompt.keys and placement.worker_id in self._tells_cached:
            self.desk.confirm(placement, usage.cached_tokens)
            self._world.seen(Seen(model, placement.cached, usage.cached_tokens, usage.input_tokens))

    def may_retry(self, failure: Failure, retries: int) -> bool:
        """Whether a turn that failed so, after `retries` retries, is to be tried again."""
        return retries < self._settings.retry_max_retries and self._world.may_retry_elsewhere(failure)

    def backoff_secs(self, returns: int) -> float:
        """The pause before a turn goes back to a worker that failed it, with jitter; `returns` counts such pauses."""
        settings = self._settings
        pause = min(settings.retry_initial_backoff_ms * 2**returns, settings.retry_max_backoff_ms) / 1000
        return pause * (0.5 + self._world.random.random() / 2)


class _Turn:
    """One leased turn: a backend that may move between workers until it speaks.

    It holds one placement at a time; the lease gives the last one back.
    """

    def __init__(self, fleet: WorkerFleet, key: RouteKey, request: TurnRequest) -> None:
        self._fleet = fleet
        self._key = key
        self._model = request.model
        self._prompt = fleet.read(key, request)
        self._tried: frozenset[str] = frozenset()
        self._retries = self._returns = 0
        self._outcome: Event = "void"
        self._streams: list[AsyncGenerator[TurnEvent, None]] = []
        self._place: tuple[Worker, Placement] | None = self._placed()

    def _placed(self) -> tuple[Worker, Placement]:
        return self._fleet.place(self._key, self._prompt, self._model, self._tried)

    async def close(self) -> None:
        """End what is still streaming and give the worker back."""
        for stream in self._streams:
            await stream.aclose()
        self._release()

    def _release(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._fleet.ended(place[1], self._outcome)

    def stream(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """See `ModelBackend`."""
        stream = self._stream(request)
        self._streams.append(stream)
        return stream

    async def _stream(self, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        while self._place is not None:
            worker, placement = self._place
            if not await self._fleet.desk.sent(placement):
                self._release()
                try:
                    self._place = self._placed()
                except GatewayError as error:
                    yield TurnFailed(error.failure)
                    return
                continue
            source = self._fleet.backend(worker).stream(request)
            try:
                event = await anext(source, _SILENT)
                if isinstance(event, TurnFailed) and await self._move(event.failure):
                    continue
                self._fleet.desk.spoke(placement)
                self._learn(event)
                yield event
                async for event in source:
                    self._learn(event)
                    yield event
                if self._outcome == "void":
                    # The stream just stopped.
                    self._outcome = "bad"
                return
            finally:
                if isinstance(source, AsyncGenerator):
                    await source.aclose()

    def _learn(self, event: TurnEvent) -> None:
        if isinstance(event, TurnDone):
            self._outcome = "good"
            if self._place is not None:
                self._fleet.learned(self._model, self._prompt, self._place[1], event)
        elif isinstance(event, TurnFailed):
            self._outcome = _blame(event.failure)

    async def _move(self, failure: Failure) -> bool:
        """Go to another worker, or back to a failed one when there is no other. False: the failure must be told."""
        if self._place is None or not self._fleet.may_retry(failure, self._retries):
            return False
        self._retries += 1
        self._tried |= {self._place[0].id}
        self._outcome = _blame(failure)
        self._release()
        self._outcome = "void"
        try:
            self._place = self._placed()
        except GatewayError:
            return False
        if self._place[0].id in self._tried:
            await asyncio.sleep(self._fleet.backoff_secs(self._returns))
            self._returns += 1
        return True


def _blame(failure: Failure) -> Event:
    # A worker that says no, or not now, is a working worker.
    return "bad" if failure.status >= 500 else "good"


def check_model(snapshot: Snapshot, model: str, now: float, startup_secs: float) -> None:
    """Raise `NotFound` when it is certain that nobody serves `model`, `NoWorker` when it is not."""
    if any(worker.may_serve(model) for worker in snapshot.workers):
        return
    unknown = [worker for worker in snapshot.workers if worker.catalog == "unknown"]
    listed = len(unknown) < len(snapshot.workers)
    if not listed or any(now - worker.added_at < startup_secs for worker in unknown):
        raise NoWorker(f"No worker that is up serves '{model}'.", retry_after=_RETRY_AFTER_SECS)
    raise NotFound(f"The model '{model}' does not exist.", code="model_not_found", param="model")


def _rules(settings: RoutingSettings) -> Rules:
    return Rules(
        failures=settings.cb_failure_threshold,
        successes=settings.cb_success_threshold,
        open_secs=settings.cb_timeout_duration_secs,
        window_secs=settings.cb_window_duration_secs,
    )
