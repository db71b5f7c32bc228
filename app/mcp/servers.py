"""From the server a request names to where its calls go, and with what. Pure: nothing is connected here.

Credentials of the operator go to the operator's servers only, credentials of a request to that request's server only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import httpx2
from msgspec import Struct

from app.mcp.settings import OperatorServer
from app.responses.ports import McpServer
from app.turn.errors import InvalidRequest
from app.turn.request import ApprovalRule

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


class Target(Struct, frozen=True, kw_only=True):
    """One server as one run uses it. Exactly one of `url` and `command` is set; names of `headers` are lower case."""

    label: str
    url: str | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str]
    headers: Mapping[str, str]
    by_operator: bool
    allowed: frozenset[str] | None = None
    read_only: bool = False
    approval: ApprovalRule = ApprovalRule()
    repeatable: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """What tells this server from others; no part of it is secret."""
        return f"operator {self.label}" if self.by_operator else f"url {self.url}"

    def permits(self, tool: str) -> bool:
        """Whether `tool` may be listed and called, as far as its name tells."""
        return self.allowed is None or tool in self.allowed

    def __repr__(self) -> str:
        return f"Target({self.place!r})"


def resolve(servers: Sequence[McpServer], known: Sequence[OperatorServer]) -> dict[str, Target]:
    """The servers by label, in order.

    Raises `InvalidRequest` for a label that is used twice or has no server, a URL or header that may not be sent, and
    credentials that collide with the operator's.
    """
    by_label = {server.label: server for server in known}
    targets: dict[str, Target] = {}
    for server in servers:
        if server.label in targets:
            raise InvalidRequest(f"Two MCP servers are labelled '{server.label}'.", param="tools.server_label")
        player = next((each for each in known if server.role is not None and each.role == server.role), None)
        targets[server.label] = _resolve(server, player or by_label.get(server.label))
    return targets


def _resolve(server: McpServer, operators: OperatorServer | None) -> Target:
    headers = _headers(server)
    if server.connector_id is not None:
        raise InvalidRequest(
            f"MCP server '{server.label}': connectors are not supported; give a server_url.", param="tools.connector_id"
        )
    if server.url is not None:
        _check_url(server.label, server.url)
        allowed = _both(server.allowed, None)
        operators = None
    elif operators is None:
        raise InvalidRequest(
            f"MCP server '{server.label}' has no server_url, and the operator has configured no server of that label.",
            param="tools.server_url",
        )
    else:
        allowed = _both(server.allowed, operators.allowed_tools)
        headers |= _operators_headers(operators, headers)
    return Target(
        label=server.label,
        url=operators.url if operators else server.url,
        command=operators.command if operators else (),
        env={name: value.reveal() for name, value in operators.env.items()} if operators else {},
        headers=headers,
        by_operator=operators is not None,
        allowed=allowed,
        read_only=bool(server.read_only),
        approval=server.require_approval,
        repeatable=frozenset(operators.repeatable_tools) if operators else frozenset(),
    )


def _both(one: Sequence[str] | None, other: Sequence[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        given = one if other is None else other
        return None if given is None else frozenset(given)
    return frozenset(one) & frozenset(other)


def _operators_headers(operators: OperatorServer, given: Mapping[str, str]) -> dict[str, str]:
    if operators.command and given:
        raise InvalidRequest(
            f"MCP server '{operators.label}' takes no headers or authorization.", param="tools.headers"
        )
    headers = {name.lower(): value.reveal() for name, value in operators.headers.items()}
    for name in headers.keys() & given.keys():
        raise InvalidRequest(
            f"MCP server '{operators.label}': header '{name}' is set by the operator.", param=f"tools.headers.{name}"
        )
    return headers


def _headers(server: McpServer) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in server.headers.items():
        lower = name.lower()
        if lower in _FORBIDDEN or lower.startswith("mcp-") or not _TOKEN.match(name) or lower in headers:
            raise InvalidRequest(
                f"MCP server '{server.label}': header '{name[:128]}' may not be set.",
                param=f"tools.headers.{name[:128]}",
            )
        headers[lower] = _value(server.label, name, value)
    if server.authorization is not None:
        if "authorization" in headers:
            raise InvalidRequest(
                f"MCP server '{server.label}' has both authorization and an Authorization header.",
                param="tools.authorization",
            )
        headers["authorization"] = f"Bearer {_value(server.label, 'authorization', server.authorization)}"
    return headers


def _value(label: str, name: str, value: str) -> str:
    if not _VALUE.match(value):
        raise InvalidRequest(
            f"MCP server '{label}': the value of '{name}' has characters a header cannot carry.",
            param="tools.authorization" if name == "authorization" else f"tools.headers.{name}",
        )
    return value.strip()


def _check_url(label: str, url: str) -> None:
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
            f"MCP server '{label}': server_url must be an http or https URL without user and password.",
            param="tools.server_url",
        )
