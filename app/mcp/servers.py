"""From the server a request names to where its calls go, and with what. Pure: nothing is connected here.

Credentials of the operator go to the operator's servers only, credentials of a request to that request's server only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol
from urllib.parse import urlsplit

import httpx2
from msgspec import Struct, structs

from app.mcp.books import Registered
from app.mcp.confinement import Confinement
from app.mcp.failure import clip
from app.mcp.rules import ServerRules, TenantPolicy
from app.mcp.settings import OperatorServer
from app.turn.errors import InvalidRequest
from app.turn.request import ApprovalRule, McpServer

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_VALUE = re.compile(r"[\t\x20-\x7e]*\Z")
_LONGEST_URL = 2048

# Ours or the connection's own (RFC 9110 section 7.6.1); a caller who could set them could smuggle or impersonate.
_FORBIDDEN = frozenset(
    [
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"),
        *("expect", "host", "keep-alive", "last-event-id", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade"),
    ]
)


class Bearer(Protocol):
    """Gives the token to send now. `renew`: the one given before was refused. Raises `McpFailure`."""

    async def __call__(self, *, renew: bool = False) -> str: ...

    async def lacks(self, scope: str) -> bool:
        """The token is not good for `scope`. Whether its user can sign in for that."""
        ...


class Target(Struct, frozen=True, kw_only=True):
    """One server as one run uses it. Exactly one of `url` and `command` is set; names of `headers` are lower case.

    `place` tells the server from all others and `version` one state of its configuration from the next; no part of
    either is secret. `registered` is the label a tenant's server is kept under, which a connector's request need not
    use. `allowed` and `read_only` are the request's filter, by the names requests see. `bearer` gives the token to
    send, which changes. `stateless`: by the word of who set it up, it remembers nothing of a session. `elicits`: there
    is a user whom its tools may ask.
    """

    label: str
    place: str
    registered: str = ""
    version: str = ""
    url: str | None = None
    command: tuple[str, ...] = ()
    confinement: Confinement = Confinement()
    env: Mapping[str, str]
    headers: Mapping[str, str]
    bearer: Bearer | None = None
    stateless: bool = False
    origin: Literal["operator", "tenant", "request"]
    rules: ServerRules = ServerRules(pinned=False)
    approval: ApprovalRule = ApprovalRule()
    allowed: frozenset[str] | None = None
    read_only: bool = False
    repeatable: frozenset[str] = frozenset()
    elicits: bool = False

    def permits(self, tool: str) -> bool:
        """Whether `tool`, by its own name, may be listed and called, as far as names tell."""
        among = self.rules.allowed_tools
        return (among is None or tool in among) and (self.allowed is None or self.shown(tool) in self.allowed)

    def shown(self, tool: str) -> str:
        """The name requests know the tool by."""
        return self.rules.rule(tool).alias or tool

    def own(self, shown: str) -> str:
        """The server's own name of a tool that requests know as `shown`; empty where that name is not given out."""
        for tool, rule in self.rules.tools.items():
            if rule.alias == shown:
                return tool
        return "" if self.rules.rule(shown).alias is not None else shown

    def __repr__(self) -> str:
        return f"Target({self.place!r})"


def resolve(
    server: McpServer, operators: Sequence[OperatorServer], registered: Sequence[Registered], policy: TenantPolicy
) -> Target:
    """Where a server that a request names is, and what may be done there.

    A label or connector is looked up among the operator's servers, then among the tenant's. Raises `InvalidRequest`
    for one that is nowhere, a URL or header that may not be sent, and credentials that collide with configured ones.
    """
    headers = _headers(server)
    if server.url is not None:
        return _from_request(server, headers, policy)
    for configured in operators:
        if _plays(server, configured) or _is_meant(server, configured.label, configured.connector_id):
            return _from_operator(server, configured, headers)
    for kept in registered:
        if _is_meant(server, kept.label, kept.config.connector_id):
            return _from_tenant(server, kept, headers)
    if server.connector_id is not None:
        raise InvalidRequest(
            f"MCP server '{server.label}': there is no connector '{clip(server.connector_id, 128)}'.",
            param=_at(server, "connector_id"),
        )
    raise InvalidRequest(
        f"MCP server '{server.label}' has no server_url, and no server of that label is configured.",
        param=_at(server, "server_url"),
    )


def check_headers(label: str, headers: Mapping[str, str]) -> None:
    """Raise `InvalidRequest` for headers that may not be sent."""
    _headers(McpServer(label=label, headers=dict(headers), path=""))


def check_labels(servers: Sequence[McpServer]) -> None:
    """Raise `InvalidRequest` for a label that is used twice."""
    seen: set[str] = set()
    for server in servers:
        if server.label in seen:
            message = f"Two MCP servers are labelled '{server.label}'."
            raise InvalidRequest(message, param=_at(server, "server_label"))
        seen.add(server.label)


def _plays(server: McpServer, configured: OperatorServer) -> bool:
    return server.role is not None and server.role == configured.role


def _is_meant(server: McpServer, label: str, connector_id: str | None) -> bool:
    return server.label == label if server.connector_id is None else server.connector_id == connector_id


def _from_request(server: McpServer, headers: Mapping[str, str], policy: TenantPolicy) -> Target:
    assert server.url is not None
    check_url(server.label, server.url, _at(server, "server_url"))
    if policy.server_urls == "deny":
        raise InvalidRequest(
            f"MCP server '{server.label}': requests may not bring servers of their own; name a registered one.",
            param=_at(server, "server_url"),
            code="server_url_not_allowed",
        )
    return Target(
        label=server.label,
        place=f"url {server.url}",
        url=server.url,
        env={},
        headers=headers,
        origin="request",
        rules=ServerRules(default=policy.server_urls, pinned=False),
        approval=server.require_approval,
        allowed=_both(server.allowed, None),
        read_only=bool(server.read_only),
    )


def _from_operator(server: McpServer, configured: OperatorServer, headers: Mapping[str, str]) -> Target:
    if configured.command and headers:
        raise InvalidRequest(
            f"MCP server '{server.label}' takes no headers or authorization.", param=_at(server, "headers")
        )
    among = _both(configured.allowed_tools, configured.rules.allowed_tools)
    fixed = {name.lower(): value.reveal() for name, value in configured.headers.items()}
    return Target(
        label=server.label,
        place=f"file:{configured.label}",
        url=configured.url,
        command=configured.command,
        confinement=configured.confinement,
        env={name: value.reveal() for name, value in configured.env.items()},
        headers=_joined(server, headers, fixed),
        origin="operator",
        rules=structs.replace(configured.rules, allowed_tools=None if among is None else tuple(sorted(among))),
        approval=server.require_approval,
        allowed=_both(server.allowed, None),
        read_only=bool(server.read_only),
        repeatable=frozenset(configured.repeatable_tools),
        stateless=configured.stateless,
    )


def _from_tenant(server: McpServer, kept: Registered, headers: Mapping[str, str]) -> Target:
    if kept.config.auth != "none" and "authorization" in headers:
        raise InvalidRequest(
            f"MCP server '{server.label}' has credentials of its own; leave out 'authorization'.",
            param=_at(server, "authorization"),
        )
    return Target(
        label=server.label,
        place=kept.id,
        registered=kept.label,
        version=str(kept.version),
        url=kept.config.url,
        stateless=kept.config.stateless,
        env={},
        headers=headers,
        origin="tenant",
        rules=kept.config.rules,
        approval=server.require_approval,
        allowed=_both(server.allowed, None),
        read_only=bool(server.read_only),
    )


def _joined(server: McpServer, given: Mapping[str, str], fixed: Mapping[str, str]) -> dict[str, str]:
    for name in given.keys() & fixed.keys():
        message = f"MCP server '{server.label}': header '{name}' is set by the operator."
        raise InvalidRequest(message, param=_at(server, f"headers.{name}"))
    return {**given, **fixed}


def _both(one: Sequence[str] | None, other: Sequence[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        given = one if other is None else other
        return None if given is None else frozenset(given)
    return frozenset(one) & frozenset(other)


def _headers(server: McpServer) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in server.headers.items():
        lower = name.lower()
        if lower in _FORBIDDEN or lower.startswith("mcp-") or not _TOKEN.match(name) or lower in headers:
            raise InvalidRequest(
                f"MCP server '{server.label}': header '{name[:128]}' may not be set.",
                param=_at(server, f"headers.{name[:128]}"),
            )
        headers[lower] = _value(server, name, value)
    if server.authorization is not None:
        if "authorization" in headers:
            raise InvalidRequest(
                f"MCP server '{server.label}' has both authorization and an Authorization header.",
                param=_at(server, "authorization"),
            )
        headers["authorization"] = f"Bearer {_value(server, 'authorization', server.authorization)}"
    return headers


def _value(server: McpServer, name: str, value: str) -> str:
    if not _VALUE.match(value):
        message = f"MCP server '{server.label}': the value of '{name}' has characters a header cannot carry."
        field = name if name == "authorization" else f"headers.{name}"
        raise InvalidRequest(message, param=_at(server, field))
    return value.strip()


def _at(server: McpServer, field: str) -> str:
    """The path of a field of the server in the request that names it."""
    return f"{server.path}.{field}" if server.path else field


def check_url(label: str, url: str, param: str) -> None:
    """Raise `InvalidRequest` for a URL that no server can have."""
    try:
        parts = urlsplit(url)
        sound = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and parts.username is None
            and parts.password is None
            and len(url) <= _LONGEST_URL
            and url.isprintable()
            and " " not in url
            and bool(httpx2.URL(url).host)
        )
    except (ValueError, httpx2.InvalidURL):
        sound = False
    if not sound:
        raise InvalidRequest(
            f"MCP server '{label}': server_url must be an http or https URL without user and password.", param=param
        )
