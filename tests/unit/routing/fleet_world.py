"""A world of workers that do what a test says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from app.responses.ports import ModelInfo
from app.routing.fleet import WorkerFleet
from app.routing.ports import PartFate, Tokenize, World
from app.routing.settings import RoutingSettings
from app.turn.errors import Failure, UpstreamFailed
from app.turn.events import Hear, TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.request import TurnRequest


@dataclass
class FakeWorker:
    """A worker: what it lists, whether it is up, whether it keeps probes waiting or refuses them, what it says."""

    models: Sequence[str] | None = ("m",)
    adapters: Sequence[str] = ()
    up: bool = True
    late: bool = False
    refuses: bool = False
    script: list[TurnEvent | BaseException] = field(default_factory=lambda: [TextDelta("hi"), TurnDone("stop")])
    served: int = 0
    closed: int = 0
    probes: int = 0
    metrics: dict[str, str] = field(default_factory=dict)
    scrapes: list[str] = field(default_factory=list)

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        self.served += 1
        try:
            for event in self.script:
                if isinstance(event, BaseException):
                    raise event
                if hear is None or not isinstance(event, TextDelta) or not hear(event):
                    yield event
        finally:
            self.closed += 1


@dataclass
class FakeWorld:
    """Workers by URL, a clock turned by hand, and what became of parts of prompts."""

    workers: dict[str, FakeWorker]
    time: float = 1000.0
    keys: dict[str, str | None] = field(default_factory=dict)
    parted: list[PartFate] = field(default_factory=list[PartFate])

    def now(self) -> float:
        return self.time

    async def check(self, url: str) -> None:
        self.workers[url].probes += 1
        if self.workers[url].late:
            await asyncio.Event().wait()
        if self.workers[url].refuses:
            # Something may be said meanwhile.
            await asyncio.sleep(0.1)
            raise UpstreamFailed("connection refused")
        if not self.workers[url].up:
            raise UpstreamFailed("down")

    async def models(self, url: str) -> list[ModelInfo] | None:
        worker = self.workers[url]
        if not worker.up:
            raise UpstreamFailed("down")
        return (
            None
            if worker.models is None
            else [ModelInfo(model, 1, "me", adapter=model in worker.adapters) for model in worker.models]
        )

    async def metrics(self, url: str, path: str) -> str | None:
        worker = self.workers[url]
        worker.scrapes.append(path)
        if not worker.up:
            raise UpstreamFailed("down")
        return worker.metrics.get(path)

    def connect(self, url: str, *, model: str | None = None, api_key: str | None = None) -> FakeWorker:
        self.keys[url] = api_key
        return self.workers[url]

    def fleet(self, *, tokenize: Tokenize | None = None, **settings: object) -> WorkerFleet:
        ports = World(
            probe=self,
            connect=self.connect,
            may_retry_elsewhere=may_retry,
            monotonic=self.now,
            random=random.Random(7),
            parted=lambda _model, fate: self.parted.append(fate),
            tokenize=tokenize,
        )
        given = {
            "worker_urls": tuple(self.workers),
            "retry_initial_backoff_ms": 0,
            "policy": "round_robin",
            "load_monitor_interval_secs": 0,
            **settings,
        }
        return WorkerFleet(RoutingSettings(**given), ports)


def may_retry(failure: Failure) -> bool:
    return failure.status >= 500 or failure.status == 429


def failed(status: int = 502) -> list[TurnEvent | BaseException]:
    return [TurnFailed(Failure(status, "upstream_error", "broken"))]


def world(**workers: FakeWorker) -> FakeWorld:
    """A world of workers at http://a, http://b ..."""
    return FakeWorld({f"http://{name}": worker for name, worker in workers.items()})


def drain(fleet: WorkerFleet, url: str) -> None:
    """No new turns for the worker."""
    fleet.put(replace(fleet.worker(url), draining=True))
