"""The ways out: one for servers of the operator's, one for what tenants name. Whoever made one closes it.

Proxies and certificates named in the environment are not used. Sessions are bounded, so connections are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from app.mcp.outbound import VettedTransport
from app.mcp.reach import Reach, networks
from app.mcp.settings import McpSettings, OperatorServer


def network_for_operator(settings: McpSettings) -> VettedTransport:
    """The way to the operator's own servers, wherever they are."""
    return _network(settings, _endpoints(settings.servers))


def network_for_others(settings: McpSettings) -> VettedTransport:
    """The way to what tenants name, servers and others; it goes only where those may be."""
    return _network(settings, frozenset())


def _network(settings: McpSettings, endpoints: frozenset[tuple[str, int]]) -> VettedTransport:
    reach = Reach(networks(settings.allowed_networks), endpoints, bool(settings.allow_loopback))
    return VettedTransport(reach, settings.max_sessions)


def _endpoints(servers: Sequence[OperatorServer]) -> frozenset[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for server in servers:
        if server.url is not None:
            parts = urlsplit(server.url)
            found.add(((parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)))
    return frozenset(found)
