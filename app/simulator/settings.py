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

    engine: Annotated[
        Literal["paced", "batch"],
        Meta(
            description="paced: each request as if it were alone. batch: requests share the engine, which reads "
            "prompts in chunks, writes one token a step for each, and holds as much as its cache has room for.",
            extra={"flag": "--engine"},
        ),
    ] = "paced"
    step_ms: Annotated[float, Meta(ge=0, description="batch: milliseconds of a step.", extra={"flag": "--step-ms"})] = (
        6.0
    )
    prompt_token_us: Annotated[
        float, Meta(ge=0, description="batch: microseconds to compute a token.", extra={"flag": "--prompt-token-us"})
    ] = 70.0
    attention_ns: Annotated[
        float, Meta(ge=0, description="batch: nanoseconds for each pair of a computed token and one it attends to.")
    ] = 1.3
    sequence_us: Annotated[
        float, Meta(ge=0, description="batch: microseconds a step for each sequence being written.")
    ] = 80.0
    context_ns: Annotated[
        float, Meta(ge=0, description="batch: nanoseconds a step for each token of those sequences.")
    ] = 12.0
    chunk_tokens: Annotated[int, Meta(ge=1, description="batch: most tokens computed in a step.")] = 8192
    fleet: Annotated[
        int,
        Meta(ge=1, description="How many workers, on consecutive ports in one process.", extra={"flag": "--fleet"}),
    ] = 1
    kv_events: Annotated[
        str | None,
        Meta(
            description="batch: publish what the cache holds on this ZeroMQ address, as vLLM does; "
            "tcp://127.0.0.1:5557, say. The other workers of a fleet have the ports after it.",
            extra={"flag": "--kv-events"},
        ),
    ] = None
    kv_replay: Annotated[
        str | None,
        Meta(description="batch: answer requests for past events on this address.", extra={"flag": "--kv-replay"}),
    ] = None
    metrics: Annotated[
        Literal["none", "vllm", "sglang", "trtllm"],
        Meta(
            description="Tell Prometheus how many requests run and wait, in the words and at the path of this engine.",
            extra={"flag": "--metrics"},
        ),
    ] = "vllm"
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
