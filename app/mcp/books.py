"""What is known of a tenant's servers: the registry, the policy, and the definitions of tools. The port, and its twin.

Whoever keeps them checks nothing but what only it can: that a label is free, that nobody else was faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct, structs

from app.mcp.definitions import Pin
from app.mcp.rules import Policy, ServerConfig, TenantPolicy
from app.turn.errors import Conflict, GatewayError, NotFound


class Registered(Struct, frozen=True, kw_only=True):
    """A tenant's server as it is kept. `version` counts its changes; `id` is never given twice, unlike `label`.

    Times are in seconds since the epoch.
    """

    tenant: str
    label: str
    id: str
    version: int
    config: ServerConfig
    enabled: bool
    created_at: int
    updated_at: int


class Stale(GatewayError):
    """412: somebody else was faster."""

    status = 412
    code = "version_mismatch"


class Books(Protocol):
    """Everything that is known. Methods raise `Unavailable` when it cannot be read or written."""

    async def servers(self, tenant: str) -> Sequence[Registered]:
        """The tenant's servers, by label."""
        ...

    async def server(self, tenant: str, label: str) -> Registered:
        """Raises `NotFound`."""
        ...

    async def add(self, server: Registered) -> None:
        """A new one. Raises `Conflict` when the label is taken."""
        ...

    async def change(self, server: Registered, *, expected: int) -> None:
        """Replace version `expected`. Raises `NotFound`, `Stale`."""
        ...

    async def remove(self, tenant: str, label: str) -> Registered:
        """Forget the server, the definitions of its tools and its credentials; what it was. Raises `NotFound`."""
        ...

    async def policy(self, tenant: str) -> Policy:
        """The tenant's policy."""
        ...

    async def known(self, tenant: str) -> tuple[Policy, Sequence[Registered]]:
        """The tenant's policy and servers: what every run asks for, in one go."""
        ...

    async def set_policy(self, tenant: str, body: TenantPolicy, *, expected: int, now: int) -> Policy:
        """Replace version `expected`. Raises `Stale`."""
        ...

    async def pins(self, tenant: str, place: str) -> Mapping[str, Pin]:
        """The recorded definitions of a server's tools, by tool."""
        ...

    async def record(self, tenant: str, place: str, pins: Sequence[Pin]) -> None:
        """Keep what was seen. What was accepted meanwhile stays accepted."""
        ...

    async def accept(self, tenant: str, place: str, tool: str, seen_digest: str, now: int) -> Pin:
        """From now on the definition last seen may be used. Raises `NotFound`, and `Stale` when that is another."""
        ...


def no_server(label: str) -> NotFound:
    """There is no such server."""
    return NotFound(f"There is no MCP server '{label}'.", code="mcp_server_not_found")


def no_tool(tool: str) -> NotFound:
    """No definition of such a tool was ever seen."""
    return NotFound(f"No definition of a tool '{tool}' was seen on this server.", code="mcp_tool_not_found")


def taken(label: str) -> Conflict:
    """There is such a server already."""
    return Conflict(f"There is already an MCP server '{label}'.", code="mcp_server_exists", param="label")


def stale(what: str) -> Stale:
    """It is not what it was."""
    return Stale(f"{what} has changed since it was read. Read it again.")


class MemoryBooks:
    """The `Books` port, for as long as the process lives."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str], Registered] = {}
        self._policies: dict[str, Policy] = {}
        self._pins: dict[tuple[str, str], dict[str, Pin]] = {}

    async def servers(self, tenant: str) -> Sequence[Registered]:
        """See `Books`."""
        return [server for (owner, _), server in sorted(self._servers.items()) if owner == tenant]

    async def server(self, tenant: str, label: str) -> Registered:
        """See `Books`."""
        if (tenant, label) not in self._servers:
            raise no_server(label)
        return self._servers[tenant, label]

    async def add(self, server: Registered) -> None:
        """See `Books`."""
        if (server.tenant, server.label) in self._servers:
            raise taken(server.label)
        self._servers[server.tenant, server.label] = server

    async def change(self, server: Registered, *, expected: int) -> None:
        """See `Books`."""
        if (await self.server(server.tenant, server.label)).version != expected:
            raise stale(f"The MCP server '{server.label}'")
        self._servers[server.tenant, server.label] = server

    async def remove(self, tenant: str, label: str) -> Registered:
        """See `Books`."""
        gone = await self.server(tenant, label)
        del self._servers[tenant, label]
        self._pins.pop((tenant, gone.id), None)
        return gone

    async def policy(self, tenant: str) -> Policy:
        """See `Books`."""
        return self._policies.get(tenant, Policy())

    async def known(self, tenant: str) -> tuple[Policy, Sequence[Registered]]:
        """See `Books`."""
        return await self.policy(tenant), await self.servers(tenant)

    async def set_policy(self, tenant: str, body: TenantPolicy, *, expected: int, now: int) -> Policy:
        """See `Books`."""
        del now
        if (await self.policy(tenant)).version != expected:
            raise stale("The policy")
        self._policies[tenant] = Policy(expected + 1, body)
        return self._policies[tenant]

    async def pins(self, tenant: str, place: str) -> Mapping[str, Pin]:
        """See `Books`."""
        return dict(self._pins.get((tenant, place), {}))

    async def record(self, tenant: str, place: str, pins: Sequence[Pin]) -> None:
        """See `Books`."""
        kept = self._pins.setdefault((tenant, place), {})
        for pin in pins:
            old = kept.get(pin.tool, pin)
            kept[pin.tool] = structs.replace(pin, accepted=old.accepted, accepted_digest=old.accepted_digest)

    async def accept(self, tenant: str, place: str, tool: str, seen_digest: str, now: int) -> Pin:
        """See `Books`."""
        pin = self._pins.get((tenant, place), {}).get(tool)
        if pin is None:
            raise no_tool(tool)
        if pin.seen_digest != seen_digest:
            raise stale(f"The definition of '{tool}'")
        accepted = structs.replace(pin, accepted=pin.seen, accepted_digest=pin.seen_digest, changed_at=now)
        self._pins[tenant, place][tool] = accepted
        return accepted
