"""The fleet as its operator sees and changes it, while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from app.routing.fleet import WorkerFleet
from app.routing.policies import POLICIES
from app.routing.registry import Worker, short_id
from app.routing.settings import PolicyName
from app.turn.errors import InvalidRequest, NotFound


class WorkerView(Struct, frozen=True, kw_only=True):
    """One worker. `id` is short and the same for as long as the URL is; `circuit` is that of its breaker.

    `inflight` turns were sent to it, `held` ones wait here for it, and `others` are in its engine from elsewhere.
    `cached_blocks` of prompts it is thought to hold, `cache_events` tells whether its engine says so itself, and
    `cache_accuracy` is the share of what was predicted that was there.
    """

    id: str
    url: str
    healthy: bool
    draining: bool
    circuit: str
    models: Sequence[str] | None
    inflight: int
    held: int
    others: int
    cached_blocks: int
    cache_events: bool
    cache_accuracy: float


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

    async def add(self, url: str, api_key: str | None, kv_events: str | None = None) -> WorkerView:
        """Make a worker known; it is used once it is healthy. Raises `InvalidRequest`, `Conflict`."""
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest("A worker's URL begins with http:// or https://.", param="url")
        return self._view(await self._fleet.add(url, api_key=api_key, kv_events=kv_events))

    def update(self, name: str, *, draining: bool | None, api_key: str | None) -> WorkerView:
        """Drain a worker or take it back, or change its key. Raises `NotFound`."""
        return self._view(self._fleet.update(self._find(name).id, draining=draining, api_key=api_key))

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
        return WorkerView(
            id=short_id(worker.id),
            url=worker.url,
            healthy=worker.healthy,
            draining=worker.draining,
            circuit=self._fleet.circuit(worker.id).value,
            models=None if worker.catalog == "any" else [info.id for info in worker.models],
            inflight=self._fleet.inflight(worker.id),
            held=chooser.desk.held(worker.id),
            others=chooser.desk.others(worker.id),
            cached_blocks=chooser.desk.cached_blocks(worker.id),
            cache_events=chooser.desk.tells(worker.id),
            cache_accuracy=round(chooser.accuracy(worker.id), 3),
        )
