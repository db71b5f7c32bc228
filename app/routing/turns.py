"""One leased turn: a backend that may move between workers until something of it is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol, Self

from msgspec.structs import replace

from app.responses.ports import ModelBackend, RouteKey
from app.routing.breaker import Event
from app.routing.choosing import Chooser
from app.routing.loads import Placement
from app.routing.parts import Parts
from app.routing.placer import Prompt
from app.routing.ports import PartFate
from app.routing.registry import Worker
from app.routing.retrying import Retrying
from app.routing.watch import Stalled, Watch
from app.turn.errors import Failure, GatewayError, NoWorker
from app.turn.events import Hear, TurnDone, TurnEvent, TurnFailed
from app.turn.request import TurnRequest

_SILENT = TurnFailed(Failure(502, "upstream_stream_cut", "The worker's answer ended before it began."))
_CUT = TurnFailed(Failure(502, "upstream_stream_cut", "The worker's answer stopped before it was complete."))
# 503: a worker that stands still is as good as gone, and another one may do better.
_STALLED = TurnFailed(Failure(503, "upstream_stalled", "The worker stopped answering."))


class Surroundings(Protocol):
    """What a turn needs of its fleet."""

    chooser: Chooser
    retrying: Retrying

    def backend(self, worker: Worker) -> ModelBackend:
        """The backend that speaks to the worker."""
        ...

    def watch(self, worker: Worker) -> Watch:
        """A watch that hears of it when the worker goes down. To be closed."""
        ...

    def suspect(self, worker_id: str) -> None:
        """The worker failed a turn: look after it soon."""
        ...

    def parted(self, model: str, became: PartFate) -> None:
        """What became of a part of a prompt that a worker was to read."""
        ...


class LeasedTurn:
    """One leased turn: a backend that may move between workers until something of it is seen.

    It holds one placement at a time; the lease gives the last one back.
    """

    def __init__(self, fleet: Surroundings, key: RouteKey, request: TurnRequest, prompt: Prompt) -> None:
        self._fleet = fleet
        self._key = key
        self._model = request.model
        self._prompt = prompt
        self._tried: frozenset[str] = frozenset()
        self._retries = self._returns = 0
        self._outcome: Event = "void"
        self._streams: list[AsyncGenerator[TurnEvent, None]] = []
        self._parts: Parts | None = None
        self._place: tuple[Worker, Placement] | None = self._placed()

    async def _placed_again(self, since: float | None = None) -> tuple[Worker, Placement]:
        pauses = self._fleet.retrying.pauses(self._model)
        while True:
            try:
                return self._placed(since)
            except NoWorker:
                pause = next(pauses, None)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def _placed(self, since: float | None = None) -> tuple[Worker, Placement]:
        return self._fleet.chooser.place(self._key, self._prompt, self._model, self._tried, since)

    async def close(self) -> None:
        """End what is still streaming and give the worker back."""
        for stream in self._streams:
            await stream.aclose()
        self._release()

    def _release(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._parts = None
            self._fleet.chooser.ended(place[1], self._outcome)
            if self._outcome == "bad":
                self._fleet.suspect(place[0].id)

    def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        """See `ModelBackend`."""
        stream = self._stream(request, None if self._key.whole else hear)
        self._streams.append(stream)
        return stream

    async def _stream(self, request: TurnRequest, hear: Hear | None) -> AsyncGenerator[TurnEvent, None]:
        while self._place is not None:
            due = await self._due(request)
            if isinstance(due, TurnFailed):
                yield due
                return
            worker, placement = due
            async with _Asked(self._fleet, worker, request, hear) as asked:
                event = await asked.next() or _SILENT
                taken = event is _STALLED
                unseen = list[TurnEvent]()
                while self._key.whole and not isinstance(event, TurnDone | TurnFailed):
                    self._fleet.chooser.desk.spoke(placement)
                    unseen.append(event)
                    event = await asked.next() or _CUT
                if isinstance(event, TurnFailed) and await self._move(event.failure, taken=taken):
                    continue
                self._fleet.chooser.desk.spoke(placement)
                for each in unseen:
                    yield each
                while event is not None:
                    yield self._learned(event)
                    event = await asked.next()
                if self._outcome == "void":
                    # The stream just stopped.
                    self._outcome = "bad"
                return

    async def _due(self, request: TurnRequest) -> tuple[Worker, Placement] | TurnFailed:
        """Wait until the turn is to be sent, whole, to the place that is told; or why it will not be."""
        while self._place is not None:
            worker, placement = self._place
            if not await self._fleet.chooser.desk.sent(placement):
                self._release()
                try:
                    self._place = await self._placed_again(placement.arrived)
                except GatewayError as error:
                    return TurnFailed(error.failure)
            elif not placement.part:
                return self._place
            elif not (
                await self._read_part(worker, placement, request) or await self._move(_STALLED.failure, taken=True)
            ):
                break
        return _STALLED

    async def _read_part(self, worker: Worker, placement: Placement, request: TurnRequest) -> bool:
        """Let the worker read a part of the prompt. False: it went down meanwhile."""
        desk = self._fleet.chooser.desk
        self._parts = self._parts or Parts(request, placement.tokens)
        part = self._parts.upto(placement.cached + placement.part)
        if part is None:
            desk.uncut(placement)
            return True
        async with _Asked(self._fleet, worker, part) as asked:
            event = await asked.next()
            while event is not None and not isinstance(event, TurnDone | TurnFailed):
                event = await asked.next()
        if isinstance(event, TurnDone):
            read = self._parts.read(event.usage)
            self._fleet.parted(self._model, "read" if read.kept else "lost")
            desk.part_read(placement, read)
            # Who was woken before it is to be there before it.
            await asyncio.sleep(0)
            return True
        self._fleet.parted(self._model, "failed")
        if event is _STALLED:
            return False
        # Chat templates may refuse what ends there. Whatever it is, how the whole fares is what counts.
        desk.uncut(placement)
        return True

    def _learned(self, event: TurnEvent) -> TurnEvent:
        """The event as it is to be told: what the worker found cached of the prompt that it has read for this turn is
        nothing that was there before."""
        if isinstance(event, TurnDone):
            self._outcome = "good"
            found = None if self._parts is None else self._parts.found
            if found is not None:
                usage = replace(event.usage, cached_tokens=min(found, event.usage.cached_tokens))
                event = replace(event, usage=usage)
            if self._place is not None:
                self._fleet.chooser.learned(self._model, self._prompt, self._place[1], event)
        elif isinstance(event, TurnFailed):
            self._outcome = _blame(event.failure)
        return event

    async def _move(self, failure: Failure, *, taken: bool) -> bool:
        """Go to another worker, or back to a failed one when there is no other. False: the failure must be told.

        A turn that is `taken` from a worker which went down has failed nowhere: that is no retry, and nobody's fault.
        """
        if self._place is None:
            return False
        if not taken:
            if not self._fleet.retrying.may_retry(failure, self._retries):
                return False
            self._retries += 1
            self._tried |= {self._place[0].id}
            self._outcome = _blame(failure)
        self._release()
        self._outcome = "void"
        try:
            self._place = await self._placed_again()
        except GatewayError:
            return False
        if self._place[0].id in self._tried:
            await asyncio.sleep(self._fleet.retrying.backoff_secs(self._returns))
            self._returns += 1
        return True


def _blame(failure: Failure) -> Event:
    # A worker that says no, or not now, is a working worker.
    return "bad" if failure.status >= 500 else "good"


class _Asked:
    """A worker's answer, watched while it is read. A context: on leaving it what is still streaming is ended."""

    def __init__(self, fleet: Surroundings, worker: Worker, request: TurnRequest, hear: Hear | None = None) -> None:
        self._watch = fleet.watch(worker)
        self._source = fleet.backend(worker).stream(request, None if hear is None else self._watch.hearing(hear))

    async def next(self) -> TurnEvent | None:
        """The next event, or None at the end; that the worker stands still is an event, too."""
        try:
            return await self._watch.next(self._source)
        except Stalled:
            return _STALLED

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        source = self._source
        self._watch.close()
        if isinstance(source, AsyncGenerator):
            await source.aclose()
