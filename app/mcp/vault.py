"""Credentials as sessions use them. The port; where they come from is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
from msgspec import Struct

from app.mcp.books import Registered
from app.mcp.failure import broken
from app.mcp.servers import Bearer


class Credential(Struct, frozen=True):
    """What is sent to a server: fixed headers, or a token that changes. `version` changes when it is replaced."""

    version: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    bearer: Bearer | None = None


class Vault(Protocol):
    """Knows the credentials."""

    async def credential(self, server: Registered, principal: str) -> Credential:
        """What to send to the tenant's `server` for `principal`. Raises `McpFailure` when there is nothing yet."""
        ...


class NoVault:
    """Knows none."""

    async def credential(self, server: Registered, principal: str) -> Credential:
        """See `Vault`."""
        del principal
        if server.config.auth != "none":
            raise broken(f"MCP server '{server.label}' needs credentials, and none are kept here.")
        return Credential()
