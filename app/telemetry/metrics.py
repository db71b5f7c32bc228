"""Every instrument there is, in one table. Rooms get small callables from `boot`; nothing here is global."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a fast local answer to a long agent run, in seconds.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """The instruments of one server, registered in `registry`. Durations are in seconds."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(name, about, labels, registry=self.registry, buckets=SECONDS)

        self.http_requests = counter(
            "shepherd_http_requests_total", "HTTP requests answered.", "method", "route", "status"
        )
        self.http_duration = histogram(
            "shepherd_http_request_duration_seconds", "From the request's first byte to the answer's last.", "route"
        )
        self.sockets = counter("shepherd_websockets_total", "WebSockets that wanted to open.", "status")
        self.sockets_open = Gauge("shepherd_websockets_open", "WebSockets open now.", registry=self.registry)
        self.responses = counter("shepherd_responses_total", "Responses finished.", "status")
        self.model_turns = counter("shepherd_model_turns_total", "Model turns run.", "model", "outcome")
        self.model_turn_duration = histogram("shepherd_model_turn_duration_seconds", "A whole model turn.", "model")
        self.first_token = histogram(
            "shepherd_model_first_token_seconds", "From asking the model to its first event.", "model"
        )
        self.tokens = counter("shepherd_tokens_total", "Tokens the models reported.", "model", "kind")
        self.cached_tokens = counter(
            "shepherd_router_cached_tokens_total",
            "Tokens of prompts that the router expected a worker to hold, and that the worker did hold.",
            "model",
            "kind",
        )
        self.prompt_parts = counter(
            "shepherd_router_prompt_parts_total", "Parts of long prompts sent to workers.", "model", "outcome"
        )
        self.tool_calls = counter("shepherd_tool_calls_total", "MCP tool calls made.", "outcome")
        self.tool_call_duration = histogram("shepherd_tool_call_duration_seconds", "One MCP tool call.")
        self._runs_active = Gauge("shepherd_runs_active", "Responses in the making.", registry=self.registry)
        self._workers = Gauge("shepherd_workers", "Workers known.", ["state"], registry=self.registry)

    def watch_runs(self, count: Callable[[], int]) -> None:
        """Read the number of running responses from `count` whenever it is scraped."""
        self._runs_active.set_function(lambda: float(count()))

    def watch_workers(self, count: Callable[[], tuple[int, int]]) -> None:
        """Read (healthy, total) workers from `count` whenever they are scraped."""
        self._workers.labels("healthy").set_function(lambda: float(count()[0]))
        self._workers.labels("total").set_function(lambda: float(count()[1]))
