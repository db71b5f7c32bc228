"""The fleet as its operator sees and changes it, while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict, replace

from app.routing.addresses import events_address, worker_url
from app.routing.fleet import WorkerFleet
from app.routing.policies import POLICIES
from app.routing.registry import Worker, short_id
from app.routing.settings import PolicyName
from app.turn.errors import InvalidRequest, NotFound

# What fits into a header.
Key: TypeAlias = Annotated[str, Meta(pattern=r"^[\x21-\x7e]+$")]


class Served(Struct, frozen=True):
    """A model that a worker serves."""

    id: str


class WorkerView(Struct, frozen=True, kw_only=True):
    """One worker. `id` is short and the same for as long as the URL is; `circuit` is that of its breaker.

    `status` is draining, ready, not_ready, or pending as long as it was never reached. `model_id` is the first of its
    `models`, or unknown for one that has no list and may be asked for every model. `load` is what it has from here,
    `inflight` turns were sent to it, `held` ones wait here for it, and `others` are in its engine from elsewhere.
    `cached_blocks` of prompts it is thought to hold, `cache_events` tells whether its engine says so itself, and
    `cache_accuracy` is the share of what was predicted that was there. `cache_regret` is the share of what its cache
    gave up lately (or of a tenth of what it can hold, if that is more) that was asked for again: near 1, its memory
    is too short. `reason` is what its last probe found wrong.
    """

    id: str
    model_id: str
    url: str
    models: Sequence[Served]
    worker_type: Literal["regular"] = "regular"
    connection_mode: Literal["http"] = "http"
    labels: Mapping[str, str]
    is_healthy: bool
    status: Literal["ready", "not_ready", "pending", "draining"]
    load: int
    draining: bool
    circuit: str
    inflight: int
    held: int
    others: int
    cached_blocks: int
    cache_events: bool
    cache_accuracy: float
    cache_regret: float
    reason: str | None


class WorkerSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker as it is to be. `kv_events` is where its engine publishes cache events, `tcp://host:port`."""

    url: str
    api_key: Key | None = None
    kv_events: str | None = None
    labels: Mapping[str, str] = {}
    draining: bool = False
    worker_type: Literal["regular"] = "regular"
    connection_mode: Literal["http"] = "http"


class WorkerChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different of a worker; what is left out stays."""

    api_key: Key | UnsetType | None = UNSET
    kv_events: str | UnsetType | None = UNSET
    labels: Mapping[str, str] | UnsetType = UNSET
    draining: bool | UnsetType = UNSET


class PolicyView(Struct, frozen=True, kw_only=True):
    """How workers are chosen: for all models, and for single ones."""

    policy: str
    models: Mapping[str, str]


class FleetAdmin:
    """Everything that can be asked of a fleet and told to it."""

    def __init__(self, fleet: WorkerFleet) -> None:
        self._fleet = fleet

    def workers(self, model: str | None = None) -> list[WorkerView]:
        """All workers, or those that may serve `model`."""
        known = self._fleet.registry.snapshot.workers
        return [self._view(worker) for worker in known if model is None or worker.may_serve(model)]

    def worker(self, name: str) -> WorkerView:
        """The worker of that id or URL. Raises `NotFound`."""
        return self._view(self._find(name))

    def add(self, spec: WorkerSpec) -> WorkerView:
        """Make a worker known; it is used once it is healthy. Raises `InvalidRequest`, `Conflict`."""
        worker = self._fleet.admit(spec.url, api_key=spec.api_key, kv_events=spec.kv_events)
        return self._view(self._fleet.put(replace(worker, labels=spec.labels, draining=spec.draining)))

    def replace(self, name: str, spec: WorkerSpec) -> WorkerView:
        """The worker is to be just so. Raises `NotFound`, `InvalidRequest` also for another URL than it has."""
        worker = self._find(name)
        if worker_url(spec.url) != worker.url:
            raise InvalidRequest("A worker's URL cannot be changed: it is what the worker is.", param="url")
        return self._view(
            self._fleet.put(
                replace(
                    worker,
                    api_key=spec.api_key,
                    kv_events=None if spec.kv_events is None else events_address(spec.kv_events),
                    labels=spec.labels,
                    draining=spec.draining,
                )
            )
        )

    def update(self, name: str, change: WorkerChange) -> WorkerView:
        """Drain a worker or take it back, or change what else is known of it. Raises `NotFound`, `InvalidRequest`."""
        if change.kv_events is not UNSET and change.kv_events is not None:
            events_address(change.kv_events)
        changed = {field: value for field, value in asdict(change).items() if value is not UNSET}
        return self._view(self._fleet.put(replace(self._find(name), **changed)))

    def remove(self, name: str) -> WorkerView:
        """Forget a worker; turns it has go on. Raises `NotFound`."""
        view = self._view(self._find(name))
        self._fleet.remove(view.url)
        return view

    def policy(self) -> PolicyView:
        """How workers are chosen now."""
        chooser = self._fleet.chooser
        return PolicyView(policy=chooser.policy, models=dict(chooser.model_policies))

    def set_policy(self, policy: PolicyName | None, models: Mapping[str, PolicyName | None]) -> PolicyView:
        """Choose differently from now on; None for a model makes it like the others. Raises `InvalidRequest`."""
        for name in (policy, *models.values()):
            if name is not None and name not in POLICIES:
                raise InvalidRequest(f"There is no policy '{name}'.", param="policy")
        chooser = self._fleet.chooser
        if policy is not None:
            chooser.policy = policy
        for model, name in models.items():
            if name is None:
                chooser.model_policies.pop(model, None)
            else:
                chooser.model_policies[model] = name
        return self.policy()

    def _find(self, name: str) -> Worker:
        worker = self._fleet.registry.snapshot.find(name)
        if worker is None:
            raise NotFound(f"Worker '{name}' not found.", code="worker_not_found")
        return worker

    def _view(self, worker: Worker) -> WorkerView:
        chooser = self._fleet.chooser
        inflight = self._fleet.inflight(worker.id)
        return WorkerView(
            id=short_id(worker.id),
            model_id=worker.models[0].id if worker.models else "unknown",
            url=worker.url,
            models=[Served(info.id) for info in worker.models],
            labels=worker.labels,
            is_healthy=worker.healthy,
            status=_status(worker),
            load=inflight,
            draining=worker.draining,
            circuit=self._fleet.circuit(worker.id).value,
            inflight=inflight,
            held=chooser.desk.held(worker.id),
            others=chooser.desk.others(worker.id),
            cached_blocks=chooser.desk.cached_blocks(worker.id),
            cache_events=chooser.desk.tells(worker.id),
            cache_accuracy=round(chooser.accuracy(worker.id), 3),
            cache_regret=round(chooser.desk.regret(worker.id), 3),
            reason=worker.reason,
        )


def _status(worker: Worker) -> Literal["ready", "not_ready", "pending", "draining"]:
    if worker.draining:
        return "draining"
    if worker.healthy:
        return "ready"
    return "pending" if worker.catalog == "unknown" else "not_ready"
