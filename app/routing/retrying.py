"""When a turn that is not lost yet is tried again, and what it waits for until then."""

from __future__ import annotations

from collections.abc import Iterator

from app.routing.eligible import all_down
from app.routing.ports import World
from app.routing.registry import Registry
from app.routing.settings import RoutingSettings
from app.turn.errors import Failure

# Without a pause between them, attempts would be all that is done.
_LEAST_SECS = 0.01


class Retrying:
    """The rules for turns of one fleet."""

    def __init__(self, registry: Registry, settings: RoutingSettings, world: World) -> None:
        self._registry = registry
        self._settings = settings
        self._world = world

    def may_retry(self, failure: Failure, retries: int) -> bool:
        """Whether a turn that failed so, after `retries` retries, is to be tried again."""
        return retries < self._settings.retry_max_retries and self._world.may_retry_elsewhere(failure)

    def backoff_secs(self, returns: int) -> float:
        """The pause before a turn goes back to a worker that failed it, with jitter; `returns` counts such pauses."""
        settings = self._settings
        pause = min(settings.retry_initial_backoff_ms * 2**returns, settings.retry_max_backoff_ms) / 1000
        return pause * (0.5 + self._world.random.random() / 2)

    def pauses(self, model: str) -> Iterator[float]:
        """The pauses after which a turn that found nobody looks again, as long as all who serve `model` are down.

        Together they are the interval of the health checks: by then every worker has been looked at again.
        """
        settings = self._settings
        first, most = settings.retry_initial_backoff_ms / 1000, settings.retry_max_backoff_ms / 1000
        for pause in doubling(first, most, settings.health_check_interval_secs):
            if not all_down(self._registry.snapshot, model):
                return
            yield pause


def doubling(first: float, most: float, total: float) -> Iterator[float]:
    """Pauses that double from `first` to `most`, and are `total` seconds together."""
    pause = max(first, _LEAST_SECS)
    while total > 0:
        pause = min(pause, max(most, _LEAST_SECS), total)
        yield pause
        total -= pause
        pause *= 2
