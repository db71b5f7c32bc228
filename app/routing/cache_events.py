"""Follows what the workers' engines tell of their caches, as long as the workers are known and what they tell is so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Protocol

import zmq.asyncio

from app.routing.cachemap import CacheMap, Exact
from app.routing.kv_events import trtllm, vllm
from app.routing.kv_events.book import Book
from app.routing.kv_events.poller import Poller
from app.routing.kv_events.subscriber import Subscriber, sources
from app.routing.kv_events.words import Batch
from app.routing.registry import Registry, Worker

_log = logging.getLogger(__name__)

# Whose events were found wrong is not believed for so long.
_DISTRUST_SECS = 300.0
_STREAMER = "app.routing.kv_events.streamer:Streamer"


class Following(Protocol):
    """Follows one worker's events."""

    async def run(self) -> None:
        """Follow until cancelled."""
        ...


class Hearing:
    """What one worker tells, written into the cache map. It is kept up to date while it is not believed."""

    def __init__(self, worker_id: str, caches: CacheMap, now: Callable[[], float]) -> None:
        self.book = Book()
        self._worker_id = worker_id
        self._caches = caches
        self._now = now
        self._not_before = 0.0

    def heard(self, batch: Batch) -> None:
        """A batch, in order."""
        changes = self.book.read(batch)
        if self._now() < self._not_before:
            return
        view = self._caches.view(self._worker_id)
        if isinstance(view, Exact):
            for change in changes:
                gone = view.evicted if change.evicted else view.lost
                gone(change.removed)
                view.stored(change.stored)
        elif len(self.book):
            # All that is known, this batch included. An engine of whose blocks none can be named is guessed.
            self._caches.tells(self._worker_id).stored(self.book.held())
        elif any(change.cleared for change in changes):
            view.clear()

    def void(self, rank: int | None = None) -> None:
        """What was heard so far, of one replica or of all, cannot be relied upon."""
        view = self._caches.view(self._worker_id)
        if rank is not None:
            gone = self.book.clear(rank).removed
            if isinstance(view, Exact):
                view.lost(gone)
            return
        self.book = Book()
        if isinstance(view, Exact):
            view.clear()

    def lost(self) -> None:
        """Nobody is there to be heard: guess meanwhile."""
        self._caches.silent(self._worker_id)

    def distrust(self) -> None:
        """What is told is not so."""
        self._not_before = self._now() + _DISTRUST_SECS
        self.lost()


class CacheEvents:
    """Listens to every worker of a registry that has an address for it. `ranks` publishers each.

    Not where prompts are known by their text, of which engines tell nothing (`by_tokens`): a worker whose blocks have
    other names than the prompts would seem to hold none of them.
    """

    def __init__(
        self, registry: Registry, caches: CacheMap, now: Callable[[], float], *, ranks: int, by_tokens: bool
    ) -> None:
        self._registry = registry
        self._caches = caches
        self._now = now
        self._ranks = ranks
        self._by_tokens = by_tokens
        self._hearings: dict[str, Hearing] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Workers were added or removed."""
        self._changed.set()

    def distrust(self, worker_id: str) -> None:
        """What the worker tells was found wrong."""
        hearing = self._hearings.get(worker_id)
        if hearing is not None:
            hearing.distrust()

    async def run(self) -> None:
        """Listen until cancelled."""
        context = zmq.asyncio.Context()
        tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                workers = self._registry.snapshot.workers
                known = {(each.id, each.kv_events): each for each in workers if each.kv_events}
                if known and not self._by_tokens:
                    _log.warning("cache events are of no use without --router-tokens engine, and are not listened to")
                    return
                for place in tasks.keys() - known.keys():
                    tasks.pop(place).cancel()
                    self._leave(place[0])
                for place in known.keys() - tasks.keys():
                    tasks[place] = asyncio.create_task(self._listen(context, known[place]))
                await self._changed.wait()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            context.destroy(linger=0)

    def _leave(self, worker_id: str) -> None:
        hearing = self._hearings.pop(worker_id, None)
        # One that was removed is not there any more, and must not be made known by being asked for.
        if hearing is not None and self._registry.snapshot.get(worker_id) is not None:
            hearing.lost()

    async def _listen(self, context: zmq.asyncio.Context, worker: Worker) -> None:
        assert worker.kv_events is not None
        hearing = self._hearings[worker.id] = Hearing(worker.id, self._caches, self._now)
        try:
            await self._follow(context, worker.kv_events, hearing)
        except Exception:  # noqa: BLE001 - who follows has nobody else to tell
            # An address that cannot be one, say. What was heard so far would never be corrected.
            _log.exception("worker %s: cache events at %s cannot be followed", worker.id, worker.kv_events)
            self._leave(worker.id)

    async def _follow(self, context: zmq.asyncio.Context, address: str, hearing: Hearing) -> None:
        if address.startswith(("http://", "https://")):
            await Poller(address, trtllm.Decoder(), hearing).run()
            return
        if address.startswith(("grpc://", "grpcs://")):
            # gRPC takes a moment and much memory to load, and few need it.
            streamer: Callable[[str, Hearing], Following] = resolve_name(_STREAMER)
            await streamer(address, hearing).run()
            return
        async with asyncio.TaskGroup() as group:
            for source in sources(address, self._ranks):
                group.create_task(Subscriber(context, source, vllm.decode, hearing).run())
