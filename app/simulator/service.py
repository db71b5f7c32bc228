"""A model server as a service model: how long its steps take, and what its prefix cache holds. Pure: it has no clock.

It behaves like an engine with chunked prefill and continuous decoding: each step computes up to a budget of prompt
tokens, first come first served, and one token for every sequence that is being written. Blocks of prompts, and of
answers once they are written, stay cached; the least recently used ones without a user are evicted first, the tail of a
sequence before its head. A request is admitted when its blocks fit.

The default numbers are about those of a 70B model in 8 bits on four H100s. Nothing here knows about routing.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence

from msgspec import Struct, field


class ServiceModel(Struct, frozen=True, kw_only=True):
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


class Request(Struct, eq=False):
    """One request and what became of it. Times in seconds. `after`: the keys of its blocks once it has its answer."""

    number: int
    arrived: float
    tokens: int
    output: int
    keys: Sequence[int]
    after: Sequence[int] = ()
    cached: int = 0
    done: int = 0
    extra: int = 0
    first: float = 0.0
    ended: float = 0.0
    worker: int = -1
    spoken_at: int = 0


class Step(Struct):
    """What a step did: who spoke first, who is done, which blocks came and went."""

    secs: float
    first: list[Request] = field(default_factory=list[Request])
    ended: list[Request] = field(default_factory=list[Request])
    stored: list[tuple[Request, list[int]]] = field(default_factory=list[tuple[Request, list[int]]])
    removed: list[int] = field(default_factory=list[int])


class ServiceEngine:
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
        self._admitted: list[Request] = []
        self._chunks: list[tuple[Request, int]] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.reading or self.writing)

    @property
    def use(self) -> float:
        """Share of the blocks that requests hold."""
        return (len(self._users) + self._private) / self.model.blocks

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def match(self, keys: Sequence[int]) -> int:
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
            step.stored.append((request, self._leave(request, request.after)))
            step.ended.append(request)
        for request, part in self._chunks:
            request.done += part
            self.computed += part
            if request.done == request.tokens:
                self.reading.popleft()
                self._speak(request, step)
        step.removed, self._removed = self._removed, []
        return step

    def admitted(self) -> list[Request]:
        """The requests admitted since this was asked last."""
        admitted, self._admitted = self._admitted, []
        return admitted

    def written(self, request: Request) -> int:
        """Tokens of its answer that are there, for a request that spoke and has not ended."""
        return self.steps - request.spoken_at + 1

    def cancel(self, request: Request) -> None:
        """Nobody wants the request any more; what is ready of it stays cached. To be called between steps."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.reading:
            self.reading.remove(request)
            self._leave(request, ())
        else:
            entry = next((entry for entry in self.writing if entry[2] is request), None)
            if entry is not None:
                self.writing.remove(entry)
                heapq.heapify(self.writing)
                self.contexts -= request.tokens + self.written(request)
                self._leave(request, ())

    def _speak(self, request: Request, step: Step) -> None:
        step.first.append(request)
        step.stored.append((request, [key for key in request.keys if key not in self._ready]))
        self._ready.update(request.keys)
        request.spoken_at = self.steps
        if request.output <= 1:
            step.stored.append((request, self._leave(request, request.after)))
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
            self._admitted.append(request)

    def _leave(self, request: Request, after: Sequence[int]) -> list[int]:
        """Give up the request's blocks; those that are computed stay cached, the answer's (`after`) among them."""
        self._private -= request.extra
        new = [key for key in after if key not in self._ready]
        self._ready.update(new)
        for key in reversed(new):
            if key not in self._users:
                self._idle[key] = None
        for key in reversed(request.keys):
            left = self._users[key] - 1
            if left:
                self._users[key] = left
            else:
                del self._users[key]
                if key in self._ready:
                    self._idle[key] = None
                    self._idle.move_to_end(key)
        self._evict()
        return new

    def _evict(self) -> None:
        over = len(self._users) + len(self._idle) + self._private - self.model.blocks
        while over > 0 and self._idle:
            key = self._idle.popitem(last=False)[0]
            if key in self._ready:
                self._ready.discard(key)
                self._removed.append(key)
            over -= 1
