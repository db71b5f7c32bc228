"""What is under way at each worker: the part of a fleet's state that changes with every turn."""

from __future__ import annotations

from collections import defaultdict

from app.routing.breaker import Breaker, Event, Rules, admits, step

_FRESH = Breaker()


class Ledger:
    """Turns in flight and the breaker, by worker id."""

    def __init__(self, rules: Rules | None) -> None:
        self._rules = rules
        self._inflight: defaultdict[str, int] = defaultdict(int)
        # Those that have something to remember.
        self._breakers: dict[str, Breaker] = {}

    def inflight(self, worker_id: str) -> int:
        """Turns this fleet has at the worker."""
        return self._inflight.get(worker_id, 0)

    def breaker(self, worker_id: str) -> Breaker:
        """The worker's breaker."""
        return self._breakers.get(worker_id, _FRESH)

    def shut(self, now: float) -> frozenset[str]:
        """The workers whose circuits let no turn through."""
        if self._rules is None or not self._breakers:
            return frozenset()
        return frozenset(each for each, breaker in self._breakers.items() if not admits(breaker, now, self._rules))

    def begin(self, worker_id: str, now: float) -> None:
        """A turn goes to the worker."""
        self._inflight[worker_id] += 1
        # A breaker that has nothing to remember is not changed by that.
        if worker_id in self._breakers:
            self._step(worker_id, "begins", now)

    def end(self, worker_id: str, outcome: Event, begun: float, now: float) -> None:
        """The turn that began when `begun` says is over."""
        self._inflight[worker_id] -= 1
        if not self._inflight[worker_id]:
            del self._inflight[worker_id]
        self._step(worker_id, outcome, now, begun)

    def reset(self, worker_id: str) -> None:
        """The worker is a new one: what its predecessor did is not held against it."""
        self._breakers.pop(worker_id, None)

    def _step(self, worker_id: str, event: Event, now: float, begun: float | None = None) -> None:
        if self._rules is None:
            return
        after = step(self.breaker(worker_id), event, now, self._rules, begun)
        if after == _FRESH:
            self._breakers.pop(worker_id, None)
        else:
            self._breakers[worker_id] = after
