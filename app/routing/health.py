"""Keeps the registry true: probes every worker, and asks it which models it serves.

`judge` decides what probes mean; the monitor only performs them. A worker that was never reached counts as healthy
after its first good probe; one that failed must convince again. One that does not answer in time, but whose streams
speak meanwhile, is busy and not down: nothing is concluded from that.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from app.routing.patience import patiently
from app.routing.ports import World
from app.routing.registry import Registry, Worker
from app.routing.settings import RoutingSettings
from app.turn.errors import GatewayError

# An unhealthy or suspected worker is looked at this often, so that it is not missed longer than need be.
_EAGER_SECS = 1.0
# The status of the errors for an answer that did not come in time.
_TIMED_OUT = 504


# What a probe found. `bad`: the worker said no, or nobody was there. `late`: no answer in time. `busy`: none either,
# but its streams spoke meanwhile.
Finding: TypeAlias = Literal["good", "bad", "late", "busy"]


class Pulse(Struct, frozen=True):
    """Probes in a row that went well or not, whether one ever went well, and whether one was `bad` since then."""

    good: int = 0
    bad: int = 0
    reached: bool = False
    gone: bool = False


def judge(pulse: Pulse, found: Finding, healthy: bool, settings: RoutingSettings) -> tuple[Pulse, bool]:
    """The pulse after a probe, and whether the worker, so far `healthy` or not, is healthy now."""
    if found == "busy":
        return pulse, healthy
    if found == "good":
        after = Pulse(pulse.good + 1, 0, reached=True)
        return after, healthy or not pulse.reached or after.good >= settings.health_success_threshold
    after = Pulse(0, pulse.bad + 1, pulse.reached, gone=pulse.gone or found == "bad")
    return after, healthy and after.bad < settings.health_failure_threshold


class Look(Struct, frozen=True):
    """What a probe found, why it found no better, and the worker with the models that it lists, if it was asked."""

    found: Finding
    reason: str | None = None
    catalog: Worker | None = None


def _reason(worker: Worker, look: Look, healthy: bool) -> str | None:
    """What is wrong with the worker, which stays said as long as it has not convinced again."""
    if look.found in ("bad", "late"):
        return look.reason
    if look.found == "busy" or not healthy:
        return worker.reason
    return None if worker.catalog == "any" or worker.models else "The worker lists no models."


class HealthListener(Protocol):
    """Told of what became of workers, and asked what they say meanwhile."""

    def heard(self, worker_id: str) -> int:
        """How many events have come from the worker's streams."""
        ...

    def went_down(self, worker_id: str) -> None:
        """The worker ceased to be healthy."""
        ...

    def came_back(self, worker_id: str) -> None:
        """The worker, which was down or at least not there for a moment, is well, and may have begun anew."""
        ...


class HealthMonitor:
    """Probes the workers of a registry for as long as it runs."""

    def __init__(self, registry: Registry, settings: RoutingSettings, world: World, listener: HealthListener) -> None:
        self._registry = registry
        self._settings = settings
        self._world = world
        self._listener = listener
        self._pulses: dict[str, Pulse] = {}
        self._listed_at: dict[str, float] = {}
        self._pokes: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Workers were added or removed."""
        self._changed.set()

    def suspect(self, worker_id: str) -> None:
        """A turn failed at the worker: probe it soon rather than at the next interval."""
        poke = self._pokes.get(worker_id)
        if poke is not None:
            poke.set()

    async def probe_all(self) -> None:
        """Probe every worker once, side by side."""
        await asyncio.gather(*(self.probe(worker.id) for worker in self._registry.snapshot.workers))

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for worker in self._registry.snapshot.workers:
                    if worker.id not in self._pokes:
                        self._pokes[worker.id] = asyncio.Event()
                        group.create_task(self._watch(worker.id, self._pokes[worker.id]))
                await self._changed.wait()

    async def _watch(self, worker_id: str, poke: asyncio.Event) -> None:
        while (worker := self._registry.snapshot.get(worker_id)) is not None:
            pulse = self._pulses.get(worker_id)
            if pulse is None:
                await self.probe(worker_id)
                continue
            sound = worker.healthy and pulse.bad == 0
            pause = self._settings.health_check_interval_secs
            try:
                async with asyncio.timeout(pause if sound else min(pause, _EAGER_SECS)):
                    await poke.wait()
            except TimeoutError:
                pass
            poke.clear()
            await self.probe(worker_id)
        for memory in (self._pulses, self._listed_at, self._pokes):
            memory.pop(worker_id, None)

    async def probe(self, worker_id: str) -> None:
        """Probe the worker once and write down what that means."""
        worker = self._registry.snapshot.get(worker_id)
        if worker is None:
            return
        look = await self._look(worker)
        now = self._world.monotonic()
        worker = self._registry.snapshot.get(worker_id)
        if worker is None:
            return
        before = self._pulses.get(worker_id, Pulse())
        self._pulses[worker_id], healthy = judge(before, look.found, worker.healthy, self._settings)
        if look.catalog is not None:
            self._listed_at[worker_id] = now
            worker = replace(worker, catalog=look.catalog.catalog, models=look.catalog.models)
        if look.found == "bad":
            # It may come back as something else.
            self._listed_at.pop(worker_id, None)
        came_up = healthy and not worker.healthy
        since = now if came_up else worker.healthy_at
        self._registry.put(replace(worker, healthy=healthy, healthy_at=since, reason=_reason(worker, look, healthy)))
        if came_up or (look.found == "good" and before.gone):
            self._listener.came_back(worker_id)
        elif worker.healthy and not healthy:
            self._listener.went_down(worker_id)

    async def _look(self, worker: Worker) -> Look:
        heard, patience = self._listener.heard(worker.id), self._settings.health_check_timeout_secs
        try:
            catalog = await patiently(self._ask(worker), patience)
        except (TimeoutError, GatewayError) as error:
            told = isinstance(error, GatewayError)
            reason = error.message if told else f"The worker did not answer its probe within {patience:g} seconds."
            if told and error.status != _TIMED_OUT:
                return Look("bad", reason)
            return Look("late" if self._listener.heard(worker.id) == heard else "busy", reason)
        return Look("good", catalog=catalog)

    async def _ask(self, worker: Worker) -> Worker | None:
        await self._world.probe.check(worker.url)
        listed_at = self._listed_at.get(worker.id)
        now = self._world.monotonic()
        # One that was removed and came back at once is a new one, which its predecessor's list says nothing of.
        due = (
            listed_at is None
            or worker.catalog == "unknown"
            or now - listed_at >= self._settings.model_discovery_interval_secs
        )
        return await self._list(worker) if due else None

    async def _list(self, worker: Worker) -> Worker:
        models = await self._world.probe.models(worker.url)
        if models is None:
            return replace(worker, catalog="any", models=())
        return replace(worker, catalog="listed", models=tuple(models))
