"""The engine whose requests share it: the service model, performed on an event loop in its own time.

Steps follow one another on a schedule of their own, so a loop that wakes up late makes up for it and slows nobody down.
What came into the cache and what left it is told after each step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count

from msgspec import Struct

from app.simulator.cache import PrefixCache
from app.simulator.engine import Occupied, Pace
from app.simulator.service import Request, ServiceEngine, ServiceModel, Step
from app.simulator.settings import SimulatorSettings
from app.simulator.tokens import Tokens


class Stored(Struct, frozen=True, gc=False):
    """Blocks that came, one behind the other: their keys, the key before the first, and their tokens."""

    keys: Sequence[int]
    parent: int | None
    tokens: Tokens


# Told what came and what went, in the order in which it did.
Publish = Callable[[Sequence[Stored], Sequence[int]], None]


def model_of(settings: SimulatorSettings) -> ServiceModel:
    """The service model that the settings describe."""
    return ServiceModel(
        step=settings.step_ms / 1e3,
        token=settings.prompt_token_us / 1e6,
        pair=settings.attention_ns / 1e9,
        sequence=settings.sequence_us / 1e6,
        context=settings.context_ns / 1e9,
        chunk=settings.chunk_tokens,
        blocks=max(settings.cache_tokens // settings.block_size, 1),
        block_tokens=settings.block_size,
    )


class BatchWork:
    """One request in the engine, admitted."""

    def __init__(self, engine: BatchEngine, request: Request, tokens: Tokens) -> None:
        self.request = request
        self.tokens = tokens
        self.there = 0
        self._engine = engine
        self._more = asyncio.Event()

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were cached when it was admitted."""
        return self.request.cached

    async def ready(self) -> AsyncIterator[int]:
        """How many tokens are there, each time there are more, until all are. Not going on with it aborts the work."""
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                yield self.there
                if self.there >= self.request.output:
                    return
        finally:
            self._engine.leave(self)

    def tell(self, there: int) -> None:
        """So many tokens are there."""
        self.there = there
        self._more.set()


class BatchEngine:
    """Runs steps while it has requests. `publish` is told of the cache."""

    def __init__(self, settings: SimulatorSettings, publish: Publish | None = None) -> None:
        # Never instant, so that clients who go away are noticed.
        self.pace = Pace(1.0, 1.0)
        self.service = ServiceEngine(model_of(settings))
        self._keys = PrefixCache(settings.block_size, 0).keys
        self._publish = publish
        self._numbers = count()
        self._works: dict[int, BatchWork] = {}
        self._admitted: dict[int, asyncio.Future[None]] = {}
        self._left: list[Request] = []
        self._stepping: asyncio.Task[None] | None = None

    def occupied(self) -> Occupied:
        """See `AnyEngine`."""
        service = self.service
        return Occupied(len(service.reading) + len(service.writing), len(service.waiting), service.use)

    async def start(self, prompt: Tokens, answer: Tokens) -> BatchWork:
        """Queue a request, and wait until it is admitted. Cancelling the wait takes it out of the queue."""
        tokens = prompt + answer
        after = self._keys(tokens)
        size = self.service.model.block_tokens
        request = Request(
            next(self._numbers), 0.0, len(prompt), max(len(answer), 1), after[: len(prompt) // size], after
        )
        work = self._works[request.number] = BatchWork(self, request, tokens)
        admitted = self._admitted[request.number] = asyncio.get_running_loop().create_future()
        self.service.submit(request)
        if self._stepping is None:
            self._stepping = asyncio.create_task(self._steps(), name="engine")
        try:
            await admitted
        except asyncio.CancelledError:
            self.leave(work)
            raise
        finally:
            self._admitted.pop(request.number, None)
        return work

    def leave(self, work: BatchWork) -> None:
        """Nobody waits for the work any more."""
        if work.there < work.request.output:
            self._left.append(work.request)

    async def _steps(self) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        while self.service.busy:
            secs = self.service.begin()
            for request in self.service.admitted():
                admitted = self._admitted.get(request.number)
                if admitted is not None and not admitted.done():
                    admitted.set_result(None)
            due += secs
            await asyncio.sleep(max(due - now(), 0))
            self._tell(self.service.finish(secs))
            for request in self._left:
                self.service.cancel(request)
                self._works.pop(request.number, None)
            self._left.clear()
        self._stepping = None

    def _tell(self, step: Step) -> None:
        if self._publish is not None and (step.stored or step.removed):
            stored = [run for request, keys in step.stored for run in self._runs(request, keys)]
            self._publish(stored, step.removed)
        for _, _, request in self.service.writing:
            self._advance(request, self.service.written(request))
        for request in step.ended:
            self._advance(request, request.output)
            del self._works[request.number]

    def _advance(self, request: Request, there: int) -> None:
        work = self._works.get(request.number)
        if work is not None:
            work.tell(there)

    def _runs(self, request: Request, keys: Sequence[int]) -> list[Stored]:
        """The request's blocks `keys` as runs of neighbours."""
        work = self._works.get(request.number)
        if work is None or not keys:
            return []
        size, chain, wanted = self.service.model.block_tokens, request.after, set(keys)
        runs: list[Stored] = []
        at = 0
        while at < len(chain):
            begin = at
            while at < len(chain) and chain[at] in wanted:
                at += 1
            if at > begin:
                parent = chain[begin - 1] if begin else None
                runs.append(Stored(chain[begin:at], parent, work.tokens[begin * size : at * size]))
            at += 1
        return runs
