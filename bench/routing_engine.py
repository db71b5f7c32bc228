"""A model server as a service model: how long its steps take, and what its prefix cache holds.

One instance behaves like an engine with chunked prefill and continuous decoding: each step computes up to a budget of
prompt tokens, first come first served, and one token for every sequence that is being written. Blocks of finished
prompts stay cached, the least recently used ones without a user are evicted first, the tail of a prompt before its
head. A request is admitted when its blocks fit.

The default numbers are about those of a 70B model in 8 bits on four H100s. Nothing here knows about routing.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ServiceModel:
    """Seconds and tokens. A step takes `step` + `token` per prompt token + `pair` per computed and attended pair
    + `sequence` per written sequence + `context` per token of their contexts."""

    step: float = 6e-3
    token: float = 70e-6
    pair: float = 1.3e-9
    sequence: float = 80e-6
    context: float = 12e-9
    chunk: int = 8192
    blocks: int = 2400
    block_tokens: int = 512


@dataclass(slots=True, eq=False)
class Request:
    """One request of a trace and what became of it. Times in seconds."""

    number: int
    arrived: float
    tokens: int
    output: int
    keys: tuple[int, ...]
    cached: int = 0
    done: int = 0
    extra: int = 0
    first: float = 0.0
    ended: float = 0.0
    worker: int = -1


@dataclass(slots=True)
class Step:
    """What a step did: who spoke first, who is done, which blocks came and went."""

    secs: float
    first: list[Request] = field(default_factory=list)
    ended: list[Request] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)


class Engine:
    """One worker. `begin` starts a step and `finish` says what it did; the caller advances the clock between them."""

    def __init__(self, model: ServiceModel) -> None:
        self.model = model
        self.waiting: deque[Request] = deque()
        self.reading: deque[Request] = deque()
        self.writing: list[tuple[int, int, Request]] = []
        self.steps = 0
        self.contexts = 0
        self.computed = 0
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._ready: set[int] = set()
        self._private = 0
        self._removed: list[int] = []
        self._chunks: list[tuple[Request, int]] = []

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.reading or self.writing)

    @property
    def use(self) -> float:
        """Share of the blocks that requests hold."""
        return (len(self._users) + self._private) / self.model.blocks

    def submit(self, request: Request) -> None:
        self.waiting.append(request)

    def match(self, keys: tuple[int, ...]) -> int:
        """Leading blocks that are cached and computed."""
        depth = 0
        for key in keys:
            if key not in self._ready:
                break
            depth += 1
        return depth

    def begin(self) -> float:
        """Start a step; how long it takes, in seconds."""
        self._admit()
        model = self.model
        count = len(self.writing)
        secs = model.step + count * model.sequence + self.contexts * model.context
        budget, self._chunks = model.chunk - count, []
        for request in self.reading:
            if budget <= 0:
                break
            part = min(request.tokens - request.done, budget)
            secs += part * model.token + part * (request.done + part / 2) * model.pair
            budget -= part
            self._chunks.append((request, part))
        return secs

    def finish(self, secs: float) -> Step:
        """The step is over."""
        step = Step(secs)
        self.steps += 1
        self.contexts += len(self.writing)
        while self.writing and self.writing[0][0] <= self.steps:
            request = heapq.heappop(self.writing)[2]
            self.contexts -= request.tokens + request.output
            self._leave(request)
            step.ended.append(request)
        for request, part in self._chunks:
            request.done += part
            self.computed += part
            if request.done == request.tokens:
                self.reading.popleft()
                self._speak(request, step)
        step.removed, self._removed = self._removed, []
        return step

    def _speak(self, request: Request, step: Step) -> None:
        step.first.append(request)
        step.stored.extend(key for key in request.keys if key not in self._ready)
        self._ready.update(request.keys)
        if request.output <= 1:
            self._leave(request)
            step.ended.append(request)
            return
        self.contexts += request.tokens + 1
        heapq.heappush(self.writing, (self.steps + request.output - 1, request.number, request))

    def _admit(self) -> None:
        model = self.model
        while self.waiting:
            request = self.waiting[0]
            total = -(-(request.tokens + request.output) // model.block_tokens)
            new = [key for key in request.keys if key not in self._users and key not in self._idle]
            extra = max(total - len(request.keys), 0)
            mine = sum(1 for key in request.keys if key in self._idle)
            room = model.blocks - len(self._users) - self._private - mine
            if len(new) + extra > room and (self.reading or self.writing):
                return
            self.waiting.popleft()
            request.cached = min(self.match(request.keys) * model.block_tokens, request.tokens - 1)
            request.done, request.extra = request.cached, extra
            for key in request.keys:
                self._idle.pop(key, None)
                self._users[key] = self._users.get(key, 0) + 1
            self._private += extra
            self._evict()
            self.reading.append(request)

    def _leave(self, request: Request) -> None:
        self._private -= request.extra
        for key in reversed(request.keys):
            left = self._users[key] - 1
            if left:
                self._users[key] = left
            else:
                del self._users[key]
                self._idle[key] = None
        self._evict()

    def _evict(self) -> None:
        over = len(self._users) + len(self._idle) + self._private - self.model.blocks
        while over > 0 and self._idle:
            key = self._idle.popitem(last=False)[0]
            if key in self._ready:
                self._ready.discard(key)
                self._removed.append(key)
            over -= 1
