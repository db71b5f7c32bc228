"""The routers that are compared: ours, through the gateway's own code, and our reading of others' algorithms.

The peers are written down from their public sources as short as they go, with their default parameters; they are not
their code, and what surrounds an algorithm there (queues, health, tokenizers) is left out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from app.routing.cachemap import CacheMap, Exact
from app.routing.engine_load import EngineLoad
from app.routing.loads import PartRead, Placement
from app.routing.parts import kept
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.simulator.service import Request, ServiceEngine


class Part(Request):
    """The beginning of a request's prompt, under its number."""


class Router(Protocol):
    """Told everything a gateway sees; answers which requests to send where now, as (request, worker)."""

    def arrive(self, request: Request, now: float) -> list[tuple[Request, int]]: ...
    def spoke(self, request: Request, now: float) -> list[tuple[Request, int]]: ...
    def ended(self, request: Request, now: float) -> None: ...
    def events(self, worker: int, stored: Sequence[int], removed: Sequence[int]) -> None: ...
    def wake(self, now: float) -> list[tuple[Request, int]]: ...
    def due(self, now: float) -> float | None: ...


class Ours:
    """The gateway's placer. `exact` feeds it the engines' cache events; else it guesses from what it sent."""

    def __init__(
        self, workers: int, policy: str, *, exact: bool, hold: bool, block_tokens: int, worker_blocks: int
    ) -> None:
        self._ids = [f"w{number}" for number in range(workers)]
        self.caches = CacheMap(capacity=10_000_000, worker_blocks=worker_blocks)
        self.placer = Placer(self.caches, Tuning())
        self._block_tokens = block_tokens
        self._policy = POLICIES[policy]
        self._hold = hold
        self._views = [self.caches.tells(name) for name in self._ids] if exact else []
        for name in self._ids:
            self.placer.load(name).tells = True
        self._places: dict[int, tuple[Placement, Request]] = {}
        self._found: dict[int, int] = {}
        self._random = random.Random(1)
        self._needs_keys = policy == "cache_aware"

    def arrive(self, request: Request, now: float, since: float | None = None) -> list[tuple[Request, int]]:
        ask = Ask(
            serial=request.number,
            draws=(self._random.random(), self._random.random()),
            tokens=request.tokens,
            head=request.keys[0] if request.keys else 0,
            key=None,
            since=since,
        )
        prompt = Prompt(request.keys if self._needs_keys else (), request.tokens, self._block_tokens)
        placement = self.placer.place(self._policy, ask, prompt, self._ids, now, hold=self._hold)
        self._places[request.number] = (placement, request)
        return [self._sent(placement)] if placement.sent_at is not None else []

    def _spared(self, now: float) -> list[tuple[Request, int]]:
        spared = self.placer.spare(now)
        return [] if spared is None else self.arrive(self._places[spared.serial][1], now, spared.arrived)

    def _sent(self, placement: Placement) -> tuple[Request, int]:
        request, worker = self._places[placement.serial][1], int(placement.worker_id[1:])
        if not placement.part:
            return request, worker
        upto = placement.cached + placement.part
        return Part(request.number, request.arrived, upto, 1, request.keys[: upto // self._block_tokens]), worker

    def spoke(self, request: Request, now: float) -> list[tuple[Request, int]]:
        placement = self._places[request.number][0]
        if isinstance(request, Part):
            self._found.setdefault(request.number, request.cached)
            held = not placement.begun or kept(request.cached, placement.cached)
            read = PartRead(request.tokens, request.cached, request.tokens - request.cached, held)
            self.placer.part_read(placement, read, now)
        else:
            self.placer.spoke(placement, now)
        sent = [self._sent(sent) for sent in self.placer.release(placement.worker_id, now)]
        return sent + self._spared(now)

    def ended(self, request: Request, now: float) -> None:
        placement = self._places.pop(request.number)[0]
        self.placer.ended(placement, now)
        # What was read for this request is nothing that was there before.
        request.cached = self._found.pop(request.number, request.cached)
        self.placer.confirm(placement.worker_id, placement.predicted, request.cached)

    def events(self, worker: int, stored: Sequence[int], removed: Sequence[int]) -> None:
        if self._views:
            view = self._views[worker]
            assert isinstance(view, Exact)
            view.stored(stored)
            view.evicted(removed)

    def wake(self, now: float) -> list[tuple[Request, int]]:
        sent = [self._sent(sent) for name in self._ids for sent in self.placer.release(name, now)]
        return sent + self._spared(now)

    def due(self, now: float) -> float | None:
        return min((due for name in self._ids if (due := self.placer.due(name, now)) is not None), default=None)


class Several:
    """Gateways that share the workers and know nothing of each other, but what they hear by asking the engines every
    `poll_secs` (None: never). Requests go to them in turn."""

    def __init__(self, gateways: Sequence[Ours], engines: Sequence[ServiceEngine], poll_secs: float | None) -> None:
        self._gateways = gateways
        self._engines = engines
        self._poll_secs = poll_secs
        self._polled = 0.0

    def arrive(self, request: Request, now: float) -> list[tuple[Request, int]]:
        if self._poll_secs is not None and now - self._polled >= self._poll_secs:
            self._polled = now
            for number, engine in enumerate(self._engines):
                running = len(engine.reading) + len(engine.writing)
                load = EngineLoad(running, len(engine.waiting), engine.use)
                for gateway in self._gateways:
                    own = gateway.placer.load(f"w{number}").inflight
                    gateway.placer.told(f"w{number}", load, own, now, now + 3 * self._poll_secs)
        return self._of(request).arrive(request, now)

    def _of(self, request: Request) -> Ours:
        return self._gateways[request.number % len(self._gateways)]

    def spoke(self, request: Request, now: float) -> list[tuple[Request, int]]:
        return self._of(request).spoke(request, now)

    def ended(self, request: Request, now: float) -> None:
        self._of(request).ended(request, now)

    def events(self, worker: int, stored: Sequence[int], removed: Sequence[int]) -> None:
        for gateway in self._gateways:
            gateway.events(worker, stored, removed)

    def wake(self, now: float) -> list[tuple[Request, int]]:
        return [sent for gateway in self._gateways for sent in gateway.wake(now)]

    def due(self, now: float) -> float | None:
        return min((due for gateway in self._gateways if (due := gateway.due(now)) is not None), default=None)


class Peer:
    """What the peers share: counts of what they have in flight, and the engines' metrics as polled."""

    def __init__(self, workers: int, engines: Sequence[ServiceEngine], block_tokens: int) -> None:
        self.range = range(workers)
        self.engines = engines
        self.block_tokens = block_tokens
        self.load = [0] * workers
        self.held: list[set[int]] = [set() for _ in self.range]
        self.serial = 0
        self._polled = -1.0
        self.metrics: list[tuple[int, float]] = [(0, 0.0)] * workers

    def choose(self, request: Request) -> int:
        raise NotImplementedError

    def arrive(self, request: Request, now: float) -> list[tuple[Request, int]]:
        if now - self._polled > 0.05:
            self._polled = now
            self.metrics = [(len(e.waiting) + len(e.reading), e.use) for e in self.engines]
        self.serial += 1
        worker = self.choose(request)
        request.worker = worker
        self.load[worker] += 1
        return [(request, worker)]

    def spoke(self, request: Request, now: float) -> list[tuple[Request, int]]:
        return []

    def ended(self, request: Request, now: float) -> None:
        self.load[request.worker] -= 1

    def events(self, worker: int, stored: Sequence[int], removed: Sequence[int]) -> None:
        self.held[worker].update(stored)
        self.held[worker].difference_update(removed)

    def wake(self, now: float) -> list[tuple[Request, int]]:
        return []

    def due(self, now: float) -> float | None:
        return None

    def depth(self, worker: int, keys: Sequence[int]) -> int:
        held = self.held[worker]
        return next((index for index, key in enumerate(keys) if key not in held), len(keys))

    def least(self) -> int:
        return min(self.range, key=lambda worker: (self.load[worker], (worker - self.serial) % len(self.load)))

    def imbalanced(self) -> bool:
        most, least = max(self.load), min(self.load)
        return most - least > 64 and most > 1.5 * least


class SmgTree(Peer):
    """SMG cache_aware for HTTP workers: a tree of texts, each node remembering the worker that last went through it."""

    def __init__(self, workers: int, engines: Sequence[ServiceEngine], block_tokens: int) -> None:
        super().__init__(workers, engines, block_tokens)
        self.last: dict[int, int] = {}

    def choose(self, request: Request) -> int:
        depth = next((i for i, key in enumerate(request.keys) if key not in self.last), len(request.keys))
        if self.imbalanced() or depth * self.block_tokens <= 0.3 * request.tokens:
            worker = self.least()
        else:
            worker = self.last[request.keys[depth - 1]]
        self.last.update(dict.fromkeys(request.keys, worker))
        return worker


class SmgEvents(Peer):
    """SMG cache_aware with cache events: most overlapping blocks, then the lower load, then the smaller cache."""

    def choose(self, request: Request) -> int:
        if self.imbalanced():
            return self.least()
        depths = [self.depth(worker, request.keys) for worker in self.range]
        if not any(depths):
            return self.least()
        return min(self.range, key=lambda worker: (-depths[worker], self.load[worker], len(self.held[worker])))


class LlmD(Peer):
    """llm-d precise prefix scorer: 2 x share of blocks held + 1 x free cache + 1 x relative shortness of the queue."""

    def choose(self, request: Request) -> int:
        queues = [waiting for waiting, _ in self.metrics]
        most, least = max(queues), min(queues)

        def score(worker: int) -> float:
            share = self.depth(worker, request.keys) / max(len(request.keys), 1)
            queue = 1.0 if most == least else (most - queues[worker]) / (most - least)
            return 2.0 * share + (1.0 - self.metrics[worker][1]) + queue

        return max(self.range, key=lambda worker: (score(worker), (worker + self.serial) % len(self.load)))


class Dynamo(Peer):
    """Dynamo KV router: blocks still to be read there, less those it holds, plus the blocks being written there."""

    def __init__(self, workers: int, engines: Sequence[ServiceEngine], block_tokens: int) -> None:
        super().__init__(workers, engines, block_tokens)
        self.reading = [0] * workers
        self.writing = [0] * workers
        self.new: dict[int, int] = {}

    def choose(self, request: Request) -> int:
        size = self.block_tokens

        def logit(worker: int) -> float:
            prefill = (self.reading[worker] + request.tokens) / size - self.depth(worker, request.keys)
            return max(prefill, 0.0) + self.writing[worker]

        worker = min(self.range, key=lambda worker: (logit(worker), (worker - self.serial) % len(self.load)))
        new = self.new[request.number] = max(request.tokens - self.depth(worker, request.keys) * size, 0)
        self.reading[worker] += new
        self.writing[worker] += len(request.keys)
        return worker

    def spoke(self, request: Request, now: float) -> list[tuple[Request, int]]:
        self.reading[request.worker] -= self.new.pop(request.number)
        return []

    def ended(self, request: Request, now: float) -> None:
        super().ended(request, now)
        self.writing[request.worker] -= len(request.keys)


PEERS = {"smg_tree": SmgTree, "smg_events": SmgEvents, "llm_d": LlmD, "dynamo": Dynamo}
