"""The replay: requests, engines and a router in simulated time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from math import ceil, sqrt

from app.simulator.service import Request, ServiceEngine, Step
from bench.routing_peers import Part, Router

_EVENT_DELAY_SECS = 0.02


def gliding(engine: ServiceEngine, steps: int) -> float:
    """The seconds of so many steps in which an engine only writes and nobody ends."""
    model, count = engine.model, len(engine.writing)
    first = model.step + count * model.sequence + engine.contexts * model.context
    return steps * first + steps * (steps - 1) / 2 * count * model.context


def glided(engine: ServiceEngine, secs: float) -> int:
    """The first of those steps that is not over sooner."""
    model, count = engine.model, len(engine.writing)
    half = count * model.context / 2
    first = model.step + count * model.sequence + engine.contexts * model.context - half
    steps = secs / first if not half else (sqrt(first * first + 4 * half * secs) - first) / (2 * half)
    return max(ceil(steps - 1e-9), 1)


class Replay:
    """Discrete events: arrivals, steps of engines, cache events on their way, and the router's own alarms.

    Steps that nothing depends on are taken many at once: those of an engine that only writes, up to the next end of an
    answer, or up to the end of the step in which a request comes.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        engines: Sequence[ServiceEngine],
        router: Router,
        then: Callable[[Request], Sequence[Request]] = lambda _: (),
    ) -> None:
        """`then`: what is requested because a request has its answer."""
        self._engines = engines
        self._router = router
        self._then = then
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = itertools.count()
        self._stepping = [False] * len(engines)
        self._glides: list[tuple[float, int] | None] = [None] * len(engines)
        self._alarm: float | None = None
        self._expect(requests)

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._queue:
            now, _, act = heapq.heappop(self._queue)
            act(now)
            self._set_alarm(now)

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._serial), act))

    def _expect(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._at(request.arrived, lambda now, request=request: self._arrive(request, now))

    def _arrive(self, request: Request, now: float) -> None:
        self._send(self._router.arrive(request, now), now)

    def _send(self, sent: Sequence[tuple[Request, int]], now: float) -> None:
        for request, worker in sent:
            request.worker = worker
            self._engines[worker].submit(request)
            if not self._stepping[worker]:
                self._step(worker, now)
            elif (glide := self._glides[worker]) is not None:
                self._cut(worker, glide, now)

    def _step(self, worker: int, now: float) -> None:
        engine = self._engines[worker]
        self._stepping[worker] = engine.busy
        if not engine.busy:
            return
        quiet = 0 if engine.waiting or engine.reading else engine.writing[0][0] - engine.steps - 1
        if quiet > 0:
            self._glide(worker, (now, quiet))
            return
        secs = engine.begin()
        self._at(now + secs, lambda now: self._stepped(worker, secs, now))

    def _glide(self, worker: int, glide: tuple[float, int]) -> None:
        """Take so many quiet steps, from when they began."""
        self._glides[worker] = glide
        began, steps = glide
        self._at(began + gliding(self._engines[worker], steps), lambda now: self._landed(worker, glide, now))

    def _cut(self, worker: int, glide: tuple[float, int], now: float) -> None:
        began, steps = glide
        over = glided(self._engines[worker], now - began)
        if over < steps:
            self._glide(worker, (began, over))

    def _landed(self, worker: int, glide: tuple[float, int], now: float) -> None:
        if self._glides[worker] is not glide:
            return
        self._glides[worker] = None
        engine, steps = self._engines[worker], glide[1]
        engine.steps += steps
        engine.contexts += steps * len(engine.writing)
        self._step(worker, now)

    def _stepped(self, worker: int, secs: float, now: float) -> None:
        step = self._engines[worker].finish(secs)
        stored = [key for _, keys in step.stored for key in keys]
        if stored or step.removed:
            self._at(now + _EVENT_DELAY_SECS, lambda _: self._router.events(worker, stored, step.removed))
        self._step(worker, now)
        self._tell(step, now)

    def _tell(self, step: Step, now: float) -> None:
        for request in step.first:
            request.first = now
            self._send(self._router.spoke(request, now), now)
        for request in step.ended:
            if isinstance(request, Part):
                continue
            request.ended = now
            self._router.ended(request, now)
            self._expect(self._then(request))

    def _set_alarm(self, now: float) -> None:
        due = self._router.due(now)
        if due is not None and (self._alarm is None or due < self._alarm):
            self._alarm = due
            self._at(max(due, now), lambda now: self._ring(due, now))

    def _ring(self, due: float, now: float) -> None:
        # One that an earlier one was set before is forgotten, else each of them would set one more.
        if due == self._alarm:
            self._alarm = None
            self._send(self._router.wake(now), now)
