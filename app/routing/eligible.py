"""Which of the workers that can serve a turn may be given it now. Pure.

Who serves a model is worked out once for each snapshot of the fleet, because it is asked for with every turn.

A worker that has just come up is cold, and often not yet what it seems (compiling, loading): for its first minute it
gets only a share of what the others have, so that a fleet is never swamped by its own newcomer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from app.routing.registry import Snapshot, Worker
from app.turn.errors import InvalidRequest, NotFound, NoWorker

RETRY_AFTER_SECS = 2.0
_TARGET = "x-shepherd-target-worker"
# Models that nobody serves are asked for too, and whoever asks may call them anything.
_MOST_MODELS = 1024


class Serving(Struct, frozen=True):
    """The workers that serve a model and may be given turns. The youngest of them became healthy at `youngest_at`."""

    workers: Sequence[Worker]
    ids: tuple[str, ...]
    by_id: Mapping[str, Worker]
    youngest_at: float

    @classmethod
    def of(cls, workers: Sequence[Worker], model: str) -> Serving:
        """Those of `workers` that serve `model` and may be given turns."""
        able = [each for each in workers if each.healthy and not each.draining and each.may_serve(model)]
        ids = tuple(each.id for each in able)
        youngest_at = max((each.healthy_at for each in able), default=0.0)
        return cls(able, ids, {each.id: each for each in able}, youngest_at)


class ServedModels:
    """Remembers what was worked out, until there is another snapshot."""

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._known: dict[str, Serving] = {}

    def of(self, snapshot: Snapshot, model: str) -> Serving:
        """The workers of `snapshot` that serve `model` and may be given turns."""
        if snapshot is not self._snapshot or len(self._known) > _MOST_MODELS:
            self._snapshot = snapshot
            self._known = {}
        serving = self._known.get(model)
        if serving is None:
            serving = self._known[model] = Serving.of(snapshot.workers, model)
        return serving


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


def all_down(snapshot: Snapshot, model: str) -> bool:
    """Whether there are workers for turns of `model`, and none of them is healthy."""
    serving = [each for each in snapshot.workers if each.may_serve(model) and not each.draining]
    return bool(serving) and not any(each.healthy for each in serving)


def targeted(snapshot: Snapshot, target: str, model: str) -> Worker:
    """The worker that a client wants its turns to run at.

    Raises `InvalidRequest` where there is none, or none that serves the model, `NoWorker` where it takes no turns now.
    """
    worker = snapshot.find(target)
    if worker is None:
        raise InvalidRequest(f"Worker '{target}' is not known.", param=_TARGET, code="worker_not_found")
    if worker.draining or not worker.healthy:
        state = "draining" if worker.draining else "not healthy"
        raise NoWorker(f"Worker '{target}' is {state}.", param=_TARGET, retry_after=RETRY_AFTER_SECS)
    if not worker.may_serve(model):
        raise InvalidRequest(f"Worker '{target}' does not serve '{model}'.", param=_TARGET, code="worker_not_found")
    return worker


def spare_newcomers(
    workers: Sequence[Worker], inflight: Callable[[str], int], now: float, warmup_secs: float, share: float
) -> Sequence[Worker]:
    """`workers` without newcomers that have their share: of the mean load of the others, and one turn at least."""
    settled = [worker for worker in workers if now - worker.healthy_at >= warmup_secs]
    if not settled or len(settled) == len(workers):
        return workers
    room = max(share * sum(inflight(worker.id) for worker in settled) / len(settled), 1.0)
    return [worker for worker in workers if now - worker.healthy_at >= warmup_secs or inflight(worker.id) < room]
