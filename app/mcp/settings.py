"""What an operator may decide about MCP: time, size and session limits, and the operator's own servers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from app.mcp.confinement import Confinement
from app.mcp.reach import networks
from app.mcp.rules import ServerRules
from app.telemetry.secret import Secret


class OperatorServer(Struct, frozen=True, kw_only=True):
    """A server every tenant can name by its label alone. Exactly one of `url` and `command` is set.

    Raises `ValueError` (a `msgspec.ValidationError` when decoded) otherwise.
    """

    label: Annotated[str, Meta(min_length=1, description="The `server_label` requests use.")]
    url: Annotated[str | None, Meta(description="Streamable HTTP endpoint.")] = None
    command: Annotated[
        tuple[str, ...], Meta(description="Exact argument list of a stdio server; no shell is involved.")
    ] = ()
    env: Annotated[
        dict[str, Secret], Meta(description="Environment of a stdio server, besides PATH, HOME and the like.")
    ] = msgspec.field(default_factory=dict[str, Secret])
    confinement: Annotated[
        Confinement,
        Meta(
            description="What a stdio server is held to: memory_bytes, cpu_secs, open_files, processes, file_bytes, "
            "new_privileges, directory."
        ),
    ] = Confinement()
    headers: Annotated[
        dict[str, Secret], Meta(description="HTTP headers sent with every request; callers cannot override them.")
    ] = msgspec.field(default_factory=dict[str, Secret])
    allowed_tools: Annotated[
        tuple[str, ...] | None, Meta(description="Tools that may be listed and called; not set: all.")
    ] = None
    connector_id: Annotated[str | None, Meta(description="Requests may also name it by this `connector_id`.")] = None
    rules: Annotated[
        ServerRules,
        Meta(description="What may be called: default, tools (decision, alias, defaults …), allowed_tools, trusted."),
    ] = ServerRules(pinned=False)
    repeatable_tools: Annotated[
        tuple[str, ...],
        Meta(
            description="Tools that only read, or for which calling twice is calling once. A call of theirs is made "
            "again when a process stopped before the answer; other calls become errors the model can read."
        ),
    ] = ()

    stateless: Annotated[
        bool,
        Meta(description="The server remembers nothing of a session: all responses of a principal may use one."),
    ] = False
    role: Annotated[
        Literal["web_search", "file_search", "code_interpreter", "image_generation"] | None,
        Meta(description="The hosted tool this server plays: its tool of that name, or its only one."),
    ] = None

    def __post_init__(self) -> None:
        if (self.url is None) == (not self.command):
            raise ValueError(f"MCP server {self.label!r} needs either a url or a command")
        if self.command and self.headers:
            raise ValueError(f"MCP server {self.label!r} is started as a command, which takes no headers")
        if self.url is not None and self.env:
            raise ValueError(f"MCP server {self.label!r} has a url, which takes no env")


class McpSettings(Struct, frozen=True, kw_only=True):
    """Limits of every MCP server. Sizes are in bytes, durations in seconds."""

    servers: Annotated[
        tuple[OperatorServer, ...],
        Meta(description="Servers a request can use by naming only their label (tables: url or command, headers …)."),
    ] = ()
    stdio_wrapper: Annotated[
        tuple[str, ...],
        Meta(description="Words put before the command of every stdio server, such as those of bubblewrap."),
    ] = ()
    allowed_networks: Annotated[
        tuple[str, ...],
        Meta(description="Networks (10.1.0.0/16) that servers of tenants and requests may be in, though not public."),
    ] = ()
    allow_loopback: Annotated[
        bool | None,
        Meta(
            description="Whether servers of tenants and requests may be on this machine. Not set: when the server "
            "starts without any key."
        ),
    ] = None
    public_url: Annotated[
        str | None,
        Meta(description="Where browsers find this gateway (https://host); users who sign in to servers return there."),
    ] = None
    served_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Names (host or host:port) clients may reach /mcp by, besides loopback and the public URL's."),
    ] = ()
    secrets_key: Annotated[
        Secret | None,
        Meta(
            description="64 hexadecimal digits under which older versions sealed credentials and waiting calls; not "
            "set: the file secrets.key in the data directory. Needed until `shepherd seal upgrade` has run. What is "
            "new is sealed with the keys of its tenant."
        ),
    ] = None
    connect_timeout_secs: Annotated[float, Meta(gt=0, description="Longest wait for a TCP (and TLS) connection.")] = 5.0
    open_timeout_secs: Annotated[
        float, Meta(gt=0, description="Longest wait for a session: connecting and agreeing on a protocol version.")
    ] = 15.0
    list_timeout_secs: Annotated[float, Meta(gt=0, description="Longest wait for all pages of a tool list.")] = 20.0
    call_timeout_secs: Annotated[
        float, Meta(gt=0, description="Longest silence of a tool call: each progress report starts it again.")
    ] = 60.0
    call_max_secs: Annotated[float, Meta(gt=0, description="Longest tool call, however much progress it reports.")] = (
        600.0
    )
    close_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long sessions may take to end when the server stops.")
    ] = 5.0
    max_body_bytes: Annotated[
        int, Meta(gt=0, description="Most bytes read for one answer; a longer one is an error, and is not read on.")
    ] = 8_388_608
    max_result_bytes: Annotated[
        int, Meta(gt=0, description="Longest tool result shown to the model; a longer one is cut and says so.")
    ] = 1_048_576
    max_pages: Annotated[int, Meta(gt=0, description="Most pages of one tool list; more is an error.")] = 50
    max_tools: Annotated[int, Meta(gt=0, description="Most tools of one server; more is an error.")] = 1000
    list_ttl_secs: Annotated[
        float,
        Meta(ge=0, description="Longest time a tool list is used again, where its server says when it changes."),
    ] = 300.0
    breaker_failures: Annotated[
        int, Meta(gt=0, description="So many failures in a row, and a server is left alone for a while.")
    ] = 5
    breaker_secs: Annotated[float, Meta(gt=0, description="How long it is left alone before it is tried again.")] = 15.0
    session_idle_secs: Annotated[float, Meta(gt=0, description="A session nobody used for this long is closed.")] = (
        300.0
    )
    session_max_age_secs: Annotated[
        float, Meta(gt=0, description="A session older than this is replaced by a new one.")
    ] = 3600.0
    held_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a call waits at a server of the older protocol while its user is asked; "
            "never longer than the call may take at all.",
        ),
    ] = 300.0
    max_held_per_tenant: Annotated[
        int, Meta(ge=1, description="Most calls of one tenant that wait so at once, in one process.")
    ] = 16
    max_calls_per_server: Annotated[
        int, Meta(gt=0, description="Most requests of one tenant that one server has at once; more wait their turn.")
    ] = 64
    max_sessions: Annotated[int, Meta(gt=0, description="Most open sessions of one process.")] = 1024
    max_sessions_per_tenant: Annotated[int, Meta(gt=0, description="Most open sessions of one tenant.")] = 128

    def __post_init__(self) -> None:
        labels = [server.label for server in self.servers]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two MCP servers are called {label!r}")
        roles = [server.role for server in self.servers if server.role is not None]
        for role in roles:
            if roles.count(role) > 1:
                raise ValueError(f"two MCP servers play {role!r}")
        networks(self.allowed_networks)
