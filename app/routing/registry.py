"""The workers that are known, as one immutable snapshot that is swapped whole.

Whoever holds a snapshot sees a consistent fleet for as long as it likes; nobody ever waits for a lock. What changes
with every turn (load, breakers) is not here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import xxhash
from msgspec import Struct

from app.responses.ports import ModelInfo
from app.routing.addresses import events_address, worker_url
from app.turn.errors import Conflict, InvalidRequest, NotFound

_log = logging.getLogger(__name__)

# `unknown`: not asked yet. `any`: the worker has no list, so it may be asked for every model.
Catalog: TypeAlias = Literal["unknown", "any", "listed"]


class Worker(Struct, frozen=True, kw_only=True):
    """One model server. `added_at` and `healthy_at` (when it last became healthy) are on the fleet's clock.

    `kv_events` is where its engine publishes what its cache holds. `labels` are the operator's own. `reason` is what
    its last probe found wrong.
    """

    id: str
    url: str
    api_key: str | None = None
    kv_events: str | None = None
    labels: Mapping[str, str] = {}
    catalog: Catalog = "unknown"
    models: tuple[ModelInfo, ...] = ()
    healthy: bool = False
    reason: str | None = None
    draining: bool = False
    added_at: float = 0.0
    healthy_at: float = 0.0

    def __repr__(self) -> str:
        return f"Worker(id={self.id!r}, healthy={self.healthy}, draining={self.draining}, catalog={self.catalog!r})"

    @property
    def told(self) -> str:
        """What it says that it serves, in words."""
        return "any model" if self.catalog == "any" else ", ".join(info.id for info in self.models) or "no model"

    def may_serve(self, model: str) -> bool:
        """Whether the worker can be asked for `model`, well or not."""
        return self.catalog == "any" or any(info.id == model for info in self.models)


def short_id(worker_id: str) -> str:
    """A worker's id as it fits into a path or a header; the same for as long as the URL is."""
    return "wkr_" + xxhash.xxh3_64_hexdigest(worker_id.encode())


class Snapshot(Struct, frozen=True):
    """The fleet at one moment, in the order the workers were added. `adapters` are the models that are such."""

    workers: tuple[Worker, ...] = ()
    adapters: frozenset[str] = frozenset()

    @classmethod
    def of(cls, workers: Iterable[Worker]) -> Snapshot:
        """The fleet of these."""
        known = tuple(workers)
        return cls(known, frozenset(info.id for worker in known for info in worker.models if info.adapter))

    def get(self, worker_id: str) -> Worker | None:
        """The worker of that id, if it is known."""
        return next((worker for worker in self.workers if worker.id == worker_id), None)

    def find(self, name: str) -> Worker | None:
        """The worker of that id, URL or short id."""
        try:
            wanted = worker_url(name)
        except InvalidRequest:
            return next((worker for worker in self.workers if name == short_id(worker.id)), None)
        return self.get(wanted)


class Registry:
    """Holds the current snapshot. A worker's id is its URL, in the form of `worker_url`."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()

    def add(self, url: str, *, now: float, api_key: str | None = None, kv_events: str | None = None) -> Worker:
        """A new worker, unhealthy until it is probed.

        Raises `Conflict` when it is already known, `InvalidRequest` for what is no address.
        """
        worker_id = worker_url(url)
        kv_events = None if kv_events is None else events_address(kv_events)
        if self.snapshot.get(worker_id) is not None:
            raise Conflict(
                f"Worker '{worker_id}' is already registered, as {short_id(worker_id)}.", code="worker_exists"
            )
        worker = Worker(id=worker_id, url=worker_id, api_key=api_key, kv_events=kv_events, added_at=now)
        self.snapshot = Snapshot.of((*self.snapshot.workers, worker))
        return worker

    def put(self, worker: Worker) -> None:
        """Replace what is known of a worker; one that was removed meanwhile stays removed."""
        known = self.snapshot.get(worker.id)
        if known is None:
            return
        if worker.healthy and (not known.healthy or worker.told != known.told):
            _log.info("worker %s is up, with %s", worker.id, worker.told)
        elif not worker.healthy and (known.healthy or worker.reason != known.reason):
            _log.warning("worker %s is down: %s", worker.id, worker.reason)
        self.snapshot = Snapshot.of(worker if each is known else each for each in self.snapshot.workers)

    def remove(self, worker_id: str) -> Worker:
        """Forget the worker. Raises `NotFound`."""
        worker = self.get(worker_id)
        self.snapshot = Snapshot.of(known for known in self.snapshot.workers if known.id != worker_id)
        return worker

    def get(self, worker_id: str) -> Worker:
        """Raises `NotFound`."""
        worker = self.snapshot.get(worker_id)
        if worker is None:
            raise NotFound(f"Worker '{worker_id}' not found.", code="worker_not_found")
        return worker
