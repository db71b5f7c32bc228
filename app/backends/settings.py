"""What an operator may decide about talking to workers."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class BackendSettings(Struct, frozen=True, kw_only=True):
    """Timeouts and limits of one model turn at a worker, and where engines differ. Durations are in seconds."""

    request_timeout_secs: Annotated[
        float,
        Meta(
            gt=0, description="How long a worker may take for one model turn.", extra={"flag": "--request-timeout-secs"}
        ),
    ] = 1800.0
    connect_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long a worker may take to accept a connection.")
    ] = 10.0
    first_byte_timeout_secs: Annotated[
        float,
        Meta(gt=0, description="How long a worker may take until the first byte of its answer, queueing included."),
    ] = 900.0
    idle_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long a worker may be silent in the middle of an answer.")
    ] = 300.0
    keepalive_secs: Annotated[
        float,
        Meta(ge=0, description="How long an unused connection to a worker is kept; less than the worker keeps it."),
    ] = 3.0
    https_proxy: Annotated[
        str | None,
        Meta(description="Proxy for workers with an https URL: http://host:port.", extra={"secret": True}),
    ] = None
    max_event_bytes: Annotated[
        int, Meta(ge=1024, description="Largest single event of a worker's stream, in bytes.")
    ] = 8 * 1024 * 1024
    max_answer_bytes: Annotated[
        int, Meta(ge=1024, description="Largest answer of a worker to one model turn, in bytes.")
    ] = 256 * 1024 * 1024
    reasoning_field: Annotated[
        Literal["both", "reasoning", "reasoning_content", "none"],
        Meta(
            description="Field that carries earlier thinking back to the engine. Engines read one and ignore the "
            "other; none where they refuse both."
        ),
    ] = "both"
    limit_field: Annotated[
        Literal["max_tokens", "max_completion_tokens"],
        Meta(description="Field that tells the engine how long an answer may get."),
    ] = "max_tokens"
    custom_tools: Annotated[
        Literal["function", "custom"],
        Meta(
            description="What the engine is offered a custom tool as: a function with one string, or, where it has "
            "custom tools as OpenAI's has, the tool itself, whose grammar the engine then enforces."
        ),
    ] = "function"
