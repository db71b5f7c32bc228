"""`/mcp` at start: a tenant's tools for MCP clients, and whom their calls wait for."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import cast
from urllib.parse import urlsplit

from litestar.types import ASGIApp

from app.api.mcp import owner_of
from app.boot.administering import Kept, Shared
from app.mcp.approval_store import SqlApprovals
from app.mcp.catalogue import Catalogues
from app.mcp.executor import McpExecutor
from app.mcp.permits import AskedFor
from app.mcp.serving import ToolServer
from app.mcp.settings import McpSettings


async def open_served(
    mcp: McpSettings,
    shared: Shared,
    kept: Kept,
    executor: McpExecutor,
    approvals: SqlApprovals,
    seconds: float,
    stack: AsyncExitStack,
) -> ASGIApp:
    """The ASGI app, closed by `stack`. Calls wait `seconds` for a word at most."""
    permits = AskedFor(approvals, shared.ids, shared.clock, seconds)
    server = ToolServer(Catalogues(executor, kept.books, mcp, permits, time.monotonic), owner_of)
    serving = await stack.enter_async_context(server.running(_hosts(mcp)))
    return cast("ASGIApp", serving.handle_request)


def _hosts(mcp: McpSettings) -> list[str]:
    public = urlsplit(mcp.public_url or "").netloc
    return ["127.0.0.1:*", "localhost:*", "[::1]:*", *mcp.served_hosts, *([public] if public else [])]
