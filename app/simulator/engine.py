"""The engine: when the tokens of an answer are there, and how much of its prompt was cached.

Endpoints give it token lists and ask how far it is; they know nothing of batches or memory. This engine has a fixed
pace: the first token after `ttft_ms`, the others `token_ms` apart, each request as if it were alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

from msgspec import Struct

from app.simulator.cache import PrefixCache
from app.simulator.settings import SimulatorSettings
from app.simulator.tokens import Tokens


class Pace(Struct, frozen=True):
    """Seconds until the first token and between two tokens."""

    first: float = 0.0
    each: float = 0.0

    @property
    def instant(self) -> bool:
        """Whether nothing is waited for."""
        return self.first == 0 and self.each == 0


class InEngine(Protocol):
    """One request in an engine."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of its prompt that were cached."""
        ...

    def ready(self) -> AsyncIterator[int]:
        """How many tokens are there, each time there are more, until all are. Not going on with it aborts it."""
        ...


class Occupied(Struct, frozen=True):
    """How much an engine has to do: requests it works on, requests that wait, and the share of its memory they hold."""

    running: int
    waiting: int = 0
    memory: float = 0.0


class AnyEngine(Protocol):
    """What a worker has for an engine."""

    pace: Pace

    def occupied(self) -> Occupied:
        """How much it has to do now."""
        ...

    async def start(self, prompt: Tokens, answer: Tokens) -> InEngine:
        """Begin to answer `prompt`."""
        ...


class Work:
    """One request in the engine."""

    def __init__(self, engine: Engine, cached_tokens: int, count: int, finished: Callable[[], object]) -> None:
        self.cached_tokens = cached_tokens
        self._engine = engine
        self._pace = engine.pace
        self._count = count
        self._finished = finished

    async def ready(self) -> AsyncIterator[int]:
        """How many tokens are there, each time there are more, until all are. Not going on with it aborts the work."""
        self._engine.running += 1
        try:
            async for there in self._written():
                yield there
        finally:
            self._engine.running -= 1

    async def _written(self) -> AsyncIterator[int]:
        pace, count = self._pace, self._count
        if pace.instant:
            self._finished()
            yield count
            return
        now = asyncio.get_running_loop().time
        begun, done = now(), 0
        while True:
            due = begun + pace.first + pace.each * done
            if (wait := due - now()) > 0:
                await asyncio.sleep(wait)
            # Late wakers get everything that has become due, so a busy loop slows nobody down further.
            late = now() - begun - pace.first
            done = count if pace.each == 0 else min(count, max(done, int(late / pace.each)) + 1)
            if done >= count:
                self._finished()
                yield count
                return
            yield done


class Engine:
    """Admits requests. One for each worker."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.pace = Pace(settings.ttft_ms / 1000, settings.token_ms / 1000)
        self.running = 0
        self._cache = PrefixCache(settings.block_size, settings.cache_tokens // settings.block_size)

    def occupied(self) -> Occupied:
        """See `AnyEngine`. Nobody ever waits."""
        return Occupied(self.running)

    async def start(self, prompt: Tokens, answer: Tokens) -> Work:
        """Begin to answer `prompt`: it is cached from now on, and the answer behind it once it has been generated.

        At least the last token of a prompt is always computed, so a prompt is never cached as a whole.
        """
        cache = self._cache
        size = cache.block_size
        keys = cache.keys(prompt + answer)
        held = cache.match(keys[: max(0, len(prompt) - 1) // size])
        cache.store(keys[: len(prompt) // size])
        return Work(self, held * size, len(answer), partial(cache.store, keys))
