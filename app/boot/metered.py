"""What the rooms do, counted: a fleet that behaves as the one it wraps, and callables that rooms call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from time import perf_counter
from typing import TypeVar, cast

from prometheus_client import Counter, Histogram

from app.responses.ports import Fleet, ModelBackend, ModelInfo, RouteKey
from app.routing.ports import PartFate, Seen
from app.telemetry.metrics import Metrics
from app.turn.events import Finish, Hear, TurnDone, TurnEvent, TurnFailed
from app.turn.request import TurnRequest
from app.turn.usage import Usage

_Instrument = TypeVar("_Instrument", Counter, Histogram)


@cache
def _of(instrument: _Instrument, *labels: str) -> _Instrument:
    """The instrument with these labels, of which there are few; looking it up there costs more than counting."""
    return instrument.labels(*labels)


class MeteredFleet:
    """A `Fleet` whose turns are counted and timed. Only models somebody serves become labels."""

    def __init__(self, fleet: Fleet, metrics: Metrics) -> None:
        self._fleet = fleet
        self._metrics = metrics

    @asynccontextmanager
    async def lease(self, key: RouteKey, request: TurnRequest) -> AsyncGenerator[ModelBackend, None]:
        """See `Fleet`."""
        async with self._fleet.lease(key, request) as backend:
            yield _MeteredBackend(backend, self._metrics, streams=not key.whole)

    def models(self, tenant: str) -> Sequence[ModelInfo]:
        """See `Fleet`."""
        return self._fleet.models(tenant)

    def ensure_model(self, tenant: str, model: str, target: str | None = None) -> None:
        """See `Fleet`."""
        self._fleet.ensure_model(tenant, model, target)


class _MeteredBackend:
    def __init__(self, backend: ModelBackend, metrics: Metrics, *, streams: bool) -> None:
        self._backend = backend
        self._metrics = metrics
        self._streams = streams

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        """See `ModelBackend`. A leased turn's first event is always yielded."""
        metrics, model = self._metrics, request.model
        began = perf_counter()
        outcome = "cut"
        # Of a turn that comes when it is over, nobody knows when its first token came.
        first = self._streams
        turn = cast("AsyncGenerator[TurnEvent, None]", self._backend.stream(request, hear))
        try:
            async with aclosing(turn):
                async for event in turn:
                    if first and not isinstance(event, TurnFailed):
                        _of(metrics.first_token, model).observe(perf_counter() - began)
                    first = False
                    if isinstance(event, TurnDone):
                        outcome = event.reason
                        count_tokens(metrics, model, event.usage)
                    elif isinstance(event, TurnFailed):
                        outcome = "failed"
                    yield event
        finally:
            _of(metrics.model_turns, model, outcome).inc()
            _of(metrics.model_turn_duration, model).observe(perf_counter() - began)


def count_tokens(metrics: Metrics, model: str, usage: Usage) -> None:
    """Add a turn's tokens. `cached` are among `input`, `reasoning` among `output`."""
    for kind, count in (
        ("input", usage.input_tokens),
        ("cached", usage.cached_tokens),
        ("output", usage.output_tokens),
        ("reasoning", usage.reasoning_tokens),
    ):
        _of(metrics.tokens, model, kind).inc(count)


def count_call(metrics: Metrics) -> Callable[[str, float], None]:
    """What counts and times tool calls. Servers and tools are strangers' names: never labels."""

    def observe(outcome: str, seconds: float) -> None:
        _of(metrics.tool_calls, outcome).inc()
        metrics.tool_call_duration.observe(seconds)

    return observe


def count_response(metrics: Metrics) -> Callable[[Finish], None]:
    """What counts finished responses by status."""
    return lambda finish: _of(metrics.responses, finish.status).inc()


def count_cached(metrics: Metrics) -> Callable[[Seen], None]:
    """What counts how well the router knew the workers' caches."""

    def observe(seen: Seen) -> None:
        _of(metrics.cached_tokens, seen.model, "predicted").inc(seen.predicted)
        _of(metrics.cached_tokens, seen.model, "actual").inc(seen.actual)

    return observe


def count_parts(metrics: Metrics) -> Callable[[str, PartFate], None]:
    """What counts the parts in which long prompts are read."""
    return lambda model, fate: _of(metrics.prompt_parts, model, fate).inc()
