"""What an operator may decide about responses."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from app.responses.lanes import USUAL, Bounds
from app.telemetry.secret import Secret


class ResponsesSettings(Struct, frozen=True, kw_only=True):
    """Limits of one response, and how runs behave around it. Durations are in seconds."""

    max_tool_calls: Annotated[
        int, Meta(ge=1, description="Most MCP calls one response may make; a request can ask for fewer, not for more.")
    ] = 128
    run_timeout_secs: Annotated[
        float, Meta(gt=0, description="A response that runs longer is ended as failed with code run_timeout.")
    ] = 3600.0
    drain_secs: Annotated[
        float, Meta(ge=0, description="How long running responses may go on after a shutdown was asked for.")
    ] = 30.0
    keepalive_secs: Annotated[
        float, Meta(gt=0, description="A silent stream sends an SSE comment this often, so that proxies keep it open.")
    ] = 15.0
    obfuscation: Annotated[
        bool,
        Meta(
            description="Pad the deltas of streams whose requests do not say whether to (`include_obfuscation`), as "
            "OpenAI does, so that their lengths tell less to who can only see those."
        ),
    ] = False
    socket_secs: Annotated[
        float, Meta(gt=0, description="How long a WebSocket may stay open; what was begun on it is finished first.")
    ] = 3600.0
    socket_lanes: Annotated[
        int, Meta(ge=1, description="Most lanes (stream_id) of one WebSocket that are busy at once.")
    ] = USUAL.lanes
    socket_waiting: Annotated[
        int, Meta(ge=0, description="Most requests that wait for their turn on one WebSocket.")
    ] = USUAL.waiting
    socket_kept: Annotated[
        int,
        Meta(ge=1, description="How many responses with `store: false` one WebSocket remembers, to go on from."),
    ] = USUAL.kept
    socket_kept_bytes: Annotated[
        int, Meta(ge=0, description="Most memory in bytes that those take; the oldest are forgotten first.")
    ] = USUAL.kept_bytes
    socket_steers: Annotated[
        int, Meta(ge=0, description="Most that may wait on one WebSocket to be said (response.steer); 0: no steering.")
    ] = USUAL.steers
    hosted_tools: Annotated[
        Literal["refuse", "omit"],
        Meta(description="A hosted tool (web_search …) that no MCP server plays: refuse the request or omit the tool."),
    ] = "refuse"
    approval_secs: Annotated[
        float, Meta(gt=0, description="How long a call waits for a person's approval before it expires.")
    ] = 86_400.0
    elicitation_secs: Annotated[
        float, Meta(gt=0, description="How long what a tool asks the user in the middle of a call can be answered.")
    ] = 3600.0
    sealing_key: Annotated[
        Secret | None,
        Meta(
            description="At least 32 secret bytes that seal what clients carry for the server (encrypted reasoning, "
            "summaries). Servers behind one address need the same. Not set: made in the data directory."
        ),
    ] = None
    stream_profile: Annotated[
        str,
        Meta(
            pattern="^(openai|openresponses)$",
            description="Event names where the two contracts differ: openai or openresponses.",
        ),
    ] = "openai"
    background_runs: Annotated[
        int, Meta(ge=1, description="Most background responses one process makes at once; the others wait their turn.")
    ] = 64
    max_takeovers: Annotated[
        int, Meta(ge=1, description="A run that was taken over this often fails: it may be what ends the processes.")
    ] = 5
    retention_days: Annotated[float, Meta(gt=0, description="Stored responses are forgotten after this time.")] = 30.0
    tenant_retention_days: Annotated[
        dict[str, float], Meta(description="The same for single tenants, by name (a table).")
    ] = msgspec.field(default_factory=dict[str, float])
    transient_secs: Annotated[
        float,
        Meta(gt=0, description="How long the result of a background response with `store: false` can be fetched."),
    ] = 600.0

    @property
    def socket_bounds(self) -> Bounds:
        """What one WebSocket may take up."""
        return Bounds(
            lanes=self.socket_lanes,
            waiting=self.socket_waiting,
            kept=self.socket_kept,
            kept_bytes=self.socket_kept_bytes,
            steers=self.socket_steers,
        )
