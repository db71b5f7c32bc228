"""What an operator may decide about a simulated worker."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Status: TypeAlias = Annotated[int, Meta(ge=400, le=599)]
Seconds: TypeAlias = Annotated[int, Meta(ge=0)]
Chunks: TypeAlias = Annotated[int, Meta(ge=0)]
BadArguments: TypeAlias = Literal["false", "list", "broken"]


class SimulatorSettings(Struct, frozen=True, kw_only=True):
    """A worker of `shepherd simulate`: what it serves, how fast, and what it does wrong."""

    host: Annotated[str, Meta(description="Address to listen on.", extra={"flag": "--host"})] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.", extra={"flag": "--port"})
    ] = 8000
    models: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Models served. One whose name ends in -reasoning thinks before it answers.",
            extra={"flag": "--models"},
        ),
    ] = ("simulated", "simulated-reasoning")
    api_key: Annotated[
        str | None,
        Meta(
            description="Bearer token that requests must carry. Not set: any.",
            extra={"flag": "--api-key", "secret": True},
        ),
    ] = None
    script: Annotated[
        str | None,
        Meta(description="File of replies, YAML or JSON; see docs/simulator.md.", extra={"flag": "--script"}),
    ] = None
    reasoning: Annotated[
        bool, Meta(description="Every model thinks before it answers.", extra={"flag": "--reasoning"})
    ] = False

    ttft_ms: Annotated[
        float, Meta(ge=0, description="Milliseconds until the first token.", extra={"flag": "--ttft-ms"})
    ] = 0.0
    token_ms: Annotated[
        float, Meta(ge=0, description="Milliseconds between two tokens.", extra={"flag": "--token-ms"})
    ] = 0.0
    block_size: Annotated[
        int, Meta(ge=1, description="Tokens in a block of the prefix cache.", extra={"flag": "--block-size"})
    ] = 16
    cache_tokens: Annotated[
        int,
        Meta(ge=0, description="Tokens the prefix cache has room for; 0: no cache.", extra={"flag": "--cache-tokens"}),
    ] = 1_200_000
    max_model_len: Annotated[
        int,
        Meta(
            ge=1,
            description="Most tokens of a prompt and its answer; a longer prompt is refused.",
            extra={"flag": "--max-model-len"},
        ),
    ] = 1_048_576
    embedding_size: Annotated[
        int,
        Meta(
            ge=1,
            le=8192,
            description="Numbers in an embedding, unless the request says.",
            extra={"flag": "--embedding-size"},
        ),
    ] = 256

    fail_status: Annotated[
        Status | None,
        Meta(description="Answer every request with this status.", extra={"flag": "--fail-status"}),
    ] = None
    retry_after_secs: Annotated[
        Seconds | None,
        Meta(description="Send this Retry-After with fail_status.", extra={"flag": "--retry-after-secs"}),
    ] = None
    hang: Annotated[bool, Meta(description="Accept every request and never answer.", extra={"flag": "--hang"})] = False
    cut_after: Annotated[
        Chunks | None,
        Meta(
            description="Close the connection after this many chunks of an answer.",
            extra={"flag": "--cut-after"},
        ),
    ] = None
    hang_after: Annotated[
        Chunks | None,
        Meta(description="Fall silent after this many chunks of an answer.", extra={"flag": "--hang-after"}),
    ] = None
    error_after: Annotated[
        Chunks | None,
        Meta(
            description="Send an error inside the stream after this many chunks.",
            extra={"flag": "--error-after"},
        ),
    ] = None
    garbage_after: Annotated[
        Chunks | None,
        Meta(
            description="Send something that is no JSON after this many chunks.",
            extra={"flag": "--garbage-after"},
        ),
    ] = None
    bad_arguments: Annotated[
        BadArguments | None,
        Meta(
            description="Call tools with arguments that are no object: false, list or broken.",
            extra={"flag": "--bad-arguments"},
        ),
    ] = None
    fault_probability: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of requests that the faults above happen to.",
            extra={"flag": "--fault-probability"},
        ),
    ] = 1.0
    seed: Annotated[
        int, Meta(description="Which requests those are, in the order of arrival.", extra={"flag": "--seed"})
    ] = 0
