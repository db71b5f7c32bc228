"""What an operator may decide about the server itself: where it listens, what it keeps, how it talks."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

PortNumber = Annotated[int, Meta(ge=0, le=65535)]


class ServerSettings(Struct, frozen=True, kw_only=True):
    """The front door. Sizes are in bytes, durations in seconds."""

    host: Annotated[str, Meta(description="Address to listen on.", extra={"flag": "--host"})] = "127.0.0.1"
    port: Annotated[
        PortNumber, Meta(description="Port to listen on; 0 takes a free one.", extra={"flag": "--port"})
    ] = 30000
    prometheus_host: Annotated[
        str, Meta(description="Address `/metrics` listens on.", extra={"flag": "--prometheus-host"})
    ] = "127.0.0.1"
    prometheus_port: Annotated[
        PortNumber | None,
        Meta(
            description="Port of `/metrics`, separate from the API's; 0 takes a free one. Not set: no metrics port.",
            extra={"flag": "--prometheus-port"},
        ),
    ] = None
    max_payload_size: Annotated[
        int,
        Meta(
            gt=0,
            description="Largest request body, in bytes; more is answered 413.",
            extra={"flag": "--max-payload-size"},
        ),
    ] = 67_108_864
    data_dir: Annotated[
        str,
        Meta(
            description="Directory of everything the server keeps, made when missing; it holds the default database.",
            extra={"flag": "--data-dir"},
        ),
    ] = "var"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least severe log lines to write.", extra={"flag": "--log-level"}),
    ] = "info"
    log_json: Annotated[bool, Meta(description="Log lines as JSON.", extra={"flag": "--log-json"})] = False
    access_log: Annotated[
        bool,
        Meta(
            description="Log one line for each HTTP request and each WebSocket, without anything that was said.",
            extra={"flag": "--access-log"},
        ),
    ] = False
    model_path: Annotated[
        str | None,
        Meta(
            description="Directory or name of the model's tokenizer. Accepted and kept; nothing reads it yet.",
            extra={"flag": "--model-path"},
        ),
    ] = None
    config: Annotated[
        str | None,
        Meta(description="Settings file: `.toml`, `.yaml` or `.yml`.", extra={"flag": "--config"}),
    ] = None
    close_secs: Annotated[
        float,
        Meta(ge=0, description="After a drain, how long clients may take to read the end of their answers."),
    ] = 5.0
