"""Ports that count: a fleet and a tool executor that behave as the ones they wrap, and tell the metrics about it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from time import perf_counter
from typing import cast

from app.responses.ports import Fleet, McpServer, ModelBackend, ModelInfo, RouteKey, ToolExecutor, ToolSession
from app.telemetry.metrics import Metrics
from app.turn.events import CallTool, Finish, ToolsListed, TurnDone, TurnEvent, TurnFailed
from app.turn.items import ToolResult
from app.turn.request import TurnRequest
from app.turn.usage import Usage


class MeteredFleet:
    """A `Fleet` whose turns are counted and timed. Only models somebody serves become labels."""

    def __init__(self, fleet: Fleet, metrics: Metrics) -> None:
        self._fleet = fleet
        self._metrics = metrics

    @asynccontextmanager
    async def lease(self, key: RouteKey, request: TurnRequest) -> AsyncGenerator[ModelBackend, None]:
        """See `Fleet`."""
        async with self._fleet.lease(key, request) as backend:
            yield _MeteredBackend(backend, self._metrics)

    def models(self, tenant: str) -> Sequence[ModelInfo]:
        """See `Fleet`."""
        return self._fleet.models(tenant)

    def ensure_model(self, tenant: str, model: str) -> None:
        """See `Fleet`."""
        self._fleet.ensure_model(tenant, model)


class _MeteredBackend:
    def __init__(self, backend: ModelBackend, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics

    async def stream(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """See `ModelBackend`."""
        metrics, model = self._metrics, request.model
        began = perf_counter()
        outcome = "cut"
        first = True
        turn = cast("AsyncGenerator[TurnEvent, None]", self._backend.stream(request))
        try:
            async with aclosing(turn):
                async for event in turn:
                    if first and not isinstance(event, TurnFailed):
                        metrics.first_token.labels(model).observe(perf_counter() - began)
                    first = False
                    if isinstance(event, TurnDone):
                        outcome = event.reason
                        count_tokens(metrics, model, event.usage)
                    elif isinstance(event, TurnFailed):
                        outcome = "failed"
                    yield event
        finally:
            metrics.model_turns.labels(model, outcome).inc()
            metrics.model_turn_duration.labels(model).observe(perf_counter() - began)


def count_tokens(metrics: Metrics, model: str, usage: Usage) -> None:
    """Add a turn's tokens. `cached` are among `input`, `reasoning` among `output`."""
    for kind, count in (
        ("input", usage.input_tokens),
        ("cached", usage.cached_tokens),
        ("output", usage.output_tokens),
        ("reasoning", usage.reasoning_tokens),
    ):
        metrics.tokens.labels(model, kind).inc(count)


class MeteredTools:
    """A `ToolExecutor` whose calls are counted and timed. Servers and tools are strangers' names: never labels."""

    def __init__(self, executor: ToolExecutor, metrics: Metrics) -> None:
        self._executor = executor
        self._metrics = metrics

    @asynccontextmanager
    async def open(
        self, tenant: str, servers: Sequence[McpServer], conversation: str | None
    ) -> AsyncGenerator[ToolSession, None]:
        """See `ToolExecutor`."""
        async with self._executor.open(tenant, servers, conversation) as session:
            yield _MeteredSession(session, self._metrics)


class _MeteredSession:
    def __init__(self, session: ToolSession, metrics: Metrics) -> None:
        self._session = session
        self._metrics = metrics

    async def list_tools(self, server_label: str) -> ToolsListed:
        """See `ToolSession`."""
        return await self._session.list_tools(server_label)

    async def call(self, call: CallTool) -> ToolResult:
        """See `ToolSession`."""
        began = perf_counter()
        outcome = "cancelled"
        try:
            result = await self._session.call(call)
            outcome = "ok" if result.error is None else result.error.kind
            return result
        finally:
            self._metrics.tool_calls.labels(outcome).inc()
            self._metrics.tool_call_duration.observe(perf_counter() - began)


def count_response(metrics: Metrics, finish: Finish) -> None:
    """Count a finished response by its status."""
    metrics.responses.labels(finish.status).inc()
