"""`/mcp`: the tenant's tools, for MCP clients. The protocol is the room's; here it only meets the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from app.api.principal import principal_of
from app.api.services import Services
from app.mcp.sessions import Owner


def handlers(services: Services) -> Sequence[ASGIRouteHandler]:
    """The handler of `/mcp`, where tools are served."""
    serve = services.mcp
    if serve is None:
        return ()

    @asgi("/mcp", copy_scope=False)
    async def mcp(scope: Scope, receive: Receive, send: Send) -> None:
        # Space around a value is no part of it (RFC 9110, section 5.5); not every HTTP parser takes all of it off.
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        await serve({**scope, "headers": headers}, receive, send)  # pyright: ignore[reportArgumentType]

    return (mcp,)


def owner_of(scope: Any) -> Owner:
    """Whose request it is."""
    principal = principal_of(scope)
    return Owner(principal.tenant, principal.id)
