"""What an operator may decide about workers and routing."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

WorkerUrl: TypeAlias = Annotated[str, Meta(pattern="^https?://")]
PortNumber: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
PolicyName: TypeAlias = Literal[
    "cache_aware",
    "least_load",
    "power_of_two",
    "round_robin",
    "random",
    "consistent_hashing",
    "prefix_hash",
    "manual",
    "passthrough",
]


class RoutingSettings(Struct, frozen=True, kw_only=True):
    """The workers, how one is chosen, and when one is given up. Durations are in seconds unless the name says ms."""

    worker_urls: Annotated[
        tuple[WorkerUrl, ...],
        Meta(
            description="Base URLs of the model servers, e.g. http://127.0.0.1:8000.", extra={"flag": "--worker-urls"}
        ),
    ] = ()
    worker_api_key: Annotated[
        str | None,
        Meta(description="Bearer token sent to every worker of worker_urls.", extra={"secret": True}),
    ] = None
    discover_file: Annotated[
        str | None,
        Meta(
            description="YAML or JSON file of workers, URLs or objects with url, api_key and kv_events, read again and "
            "again.",
            extra={"flag": "--discover-file"},
        ),
    ] = None
    discover_dns: Annotated[
        WorkerUrl | None,
        Meta(
            description="URL of a name whose addresses are workers, a headless service's say: http://workers.svc:8000.",
            extra={"flag": "--discover-dns"},
        ),
    ] = None
    service_discovery: Annotated[
        bool,
        Meta(description="Find workers in a Kubernetes cluster.", extra={"flag": "--service-discovery"}),
    ] = False
    service_discovery_selector: Annotated[
        tuple[Annotated[str, Meta(pattern="^[^=,]+=[^=,]*$")], ...],
        Meta(
            description="Labels, key=value, that workers have, all of them; those of EndpointSlices include "
            "kubernetes.io/service-name.",
            extra={"flag": "--selector"},
        ),
    ] = ()
    service_discovery_port: Annotated[
        PortNumber | None,
        Meta(
            description="The port workers there listen on; not set: 80 for pods, and the slices' own for "
            "EndpointSlices.",
            extra={"flag": "--service-discovery-port"},
        ),
    ] = None
    service_discovery_port_name: Annotated[
        str | None,
        Meta(
            description="Which of their own ports, where EndpointSlices have several.",
            extra={"flag": "--service-discovery-port-name"},
        ),
    ] = None
    service_discovery_namespace: Annotated[
        str | None,
        Meta(
            description="The namespace they are in; not set: all namespaces.",
            extra={"flag": "--service-discovery-namespace"},
        ),
    ] = None
    service_discovery_resource: Annotated[
        Literal["pods", "endpointslices"],
        Meta(
            description="Whether the labels are those of pods or of EndpointSlices.",
            extra={"flag": "--service-discovery-resource"},
        ),
    ] = "pods"
    service_discovery_kubeconfig: Annotated[
        str | None,
        Meta(
            description="A kubeconfig file, whose current context is used; not set: the pod's service account.",
            extra={"flag": "--service-discovery-kubeconfig"},
        ),
    ] = None
    service_discovery_kv_port: Annotated[
        PortNumber | None,
        Meta(description="The port on which engines there publish what their caches hold."),
    ] = None
    discover_interval_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="How often the file and the name are looked at.",
            extra={"flag": "--discover-interval-secs"},
        ),
    ] = 5.0
    discover_grace_secs: Annotated[
        float, Meta(ge=0, description="How long a worker that is gone from there may go on with its turns.")
    ] = 300.0
    workers_api: Annotated[
        bool | None,
        Meta(
            description="Serve /workers and /routing/policy to keys with the scope admin. Not set: only where no key "
            "is needed at all.",
            extra={"flag": "--workers-api"},
        ),
    ] = None
    policy: Annotated[
        PolicyName,
        Meta(description="How a worker is chosen for a turn.", extra={"flag": "--policy"}),
    ] = "cache_aware"
    model_policies: Annotated[
        dict[str, PolicyName],
        Meta(description="Policies of single models, by model id; others use policy."),
    ] = msgspec.field(default_factory=dict[str, PolicyName])

    hold_secs: Annotated[
        float,
        Meta(
            ge=0,
            description="cache_aware: a turn waits while its worker has more seconds of prompts to read than this.",
        ),
    ] = 0.4
    hold_aging: Annotated[
        float,
        Meta(
            ge=0, description="cache_aware: of waiting turns the shortest goes first, less this much a second waited."
        ),
    ] = 0.3
    part_secs: Annotated[
        float,
        Meta(
            ge=0,
            description=(
                "cache_aware: a prompt that takes longer to read is sent in parts of about so many seconds, so that "
                "shorter ones need not wait for all of it. 0: never."
            ),
        ),
    ] = 2.0
    cache_block_bytes: Annotated[
        int, Meta(ge=64, description="cache_aware: prompts are compared in blocks of this many bytes.")
    ] = 512
    worker_cache_tokens: Annotated[
        int,
        Meta(
            ge=1,
            description="cache_aware: how many tokens a worker that does not tell has room for, prompts and answers.",
            extra={"flag": "--worker-cache-tokens"},
        ),
    ] = 1_000_000
    cache_index_blocks: Annotated[
        int, Meta(ge=1, description="cache_aware: most different blocks that are remembered, about 130 bytes each.")
    ] = 2_000_000
    cache_trust: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="cache_aware: a worker's reports on its cache are believed while at least this share of the "
            "cached tokens they predict is there.",
        ),
    ] = 0.8
    kv_events: Annotated[
        tuple[str, ...],
        Meta(
            description="Where the engines of worker_urls publish what their caches hold, in the same order: "
            "tcp://host:port, or tcp://host:port,tcp://host:port with the socket for replays; for TensorRT-LLM "
            "http://host:port/kv_cache_events, which is asked; for SMG's servicers grpc://host:port.",
            extra={"flag": "--kv-events"},
        ),
    ] = ()
    kv_ranks: Annotated[
        int, Meta(ge=1, description="Data-parallel ranks of each worker; their publishers have the ports after it.")
    ] = 1
    tokens: Annotated[
        Literal["text", "engine"],
        Meta(
            description="cache_aware: compare prompts by their text, or by the tokens that a worker's /tokenize finds "
            "in them, which is dearer. Only with tokens can what engines tell of their caches be used.",
            extra={"flag": "--router-tokens"},
        ),
    ] = "text"
    sticky_most_keys: Annotated[
        int, Meta(ge=1, description="manual: how many keys are remembered with the worker they stay at.")
    ] = 100_000

    worker_warmup_secs: Annotated[
        float,
        Meta(ge=0, description="How long a worker that came up is new.", extra={"flag": "--worker-warmup-secs"}),
    ] = 60.0
    worker_warmup_share: Annotated[
        float,
        Meta(
            gt=0,
            description="A new worker gets at most this share of the turns the others have, but always one.",
            extra={"flag": "--worker-warmup-share"},
        ),
    ] = 0.25
    stream_stall_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="A worker that began to answer and then says nothing for this long has failed the turn.",
            extra={"flag": "--stream-stall-secs"},
        ),
    ] = 60.0

    health_check_interval_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="How often a healthy worker is probed; and how long a turn waits for one when all are down.",
            extra={"flag": "--health-check-interval-secs"},
        ),
    ] = 10.0
    health_check_timeout_secs: Annotated[
        float,
        Meta(gt=0, description="How long a probe may take.", extra={"flag": "--health-check-timeout-secs"}),
    ] = 5.0
    health_failure_threshold: Annotated[
        int,
        Meta(
            ge=1,
            description="Failed probes in a row that make a worker unhealthy.",
            extra={"flag": "--health-failure-threshold"},
        ),
    ] = 3
    health_success_threshold: Annotated[
        int,
        Meta(
            ge=1,
            description="Good probes in a row that make a worker healthy again.",
            extra={"flag": "--health-success-threshold"},
        ),
    ] = 2
    load_monitor_interval_secs: Annotated[
        float,
        Meta(
            ge=0,
            description="How often engines are asked for their load, which matters where others use the same workers; "
            "0: never.",
            extra={"flag": "--load-monitor-interval"},
        ),
    ] = 2.0
    model_discovery_interval_secs: Annotated[
        float,
        Meta(gt=0, description="How often a worker is asked which models it serves."),
    ] = 60.0
    worker_startup_timeout_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="A worker that was never reached may still turn out to serve an unknown model for this long.",
            extra={"flag": "--worker-startup-timeout-secs"},
        ),
    ] = 1800.0

    retry_max_retries: Annotated[
        int,
        Meta(
            ge=0,
            description="How often a turn of which nothing was seen is tried again, elsewhere if possible.",
            extra={"flag": "--retry-max-retries"},
        ),
    ] = 5
    retry_initial_backoff_ms: Annotated[
        int,
        Meta(
            ge=0,
            description="The wait before a turn goes back to a worker that has failed it; it doubles each time.",
            extra={"flag": "--retry-initial-backoff-ms"},
        ),
    ] = 50
    retry_max_backoff_ms: Annotated[
        int,
        Meta(ge=0, description="The longest such wait.", extra={"flag": "--retry-max-backoff-ms"}),
    ] = 2000

    cb_failure_threshold: Annotated[
        int,
        Meta(
            ge=1,
            description="Failed turns in a row that open a worker's circuit.",
            extra={"flag": "--cb-failure-threshold"},
        ),
    ] = 10
    cb_success_threshold: Annotated[
        int,
        Meta(ge=1, description="Good trial turns that close it again.", extra={"flag": "--cb-success-threshold"}),
    ] = 3
    cb_timeout_duration_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a circuit stays open before a trial.",
            extra={"flag": "--cb-timeout-duration-secs"},
        ),
    ] = 60.0
    cb_window_duration_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="Failures further apart than this do not add up.",
            extra={"flag": "--cb-window-duration-secs"},
        ),
    ] = 120.0
