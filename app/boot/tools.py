"""The MCP room at start: what runs call, what waits for approval, what admins use, and what serves MCP clients."""

from __future__ import annotations

from contextlib import AsyncExitStack

from litestar.types import ASGIApp
from msgspec import Struct, structs

from app.api.admin.rooms import Admin
from app.boot.administering import Shared, open_admin
from app.boot.auditing import calls_to
from app.boot.metered import count_call
from app.boot.sealed import open_secrets
from app.boot.serving import open_served
from app.boot.waiting import Waiting, open_waiting
from app.mcp.behind import Behind
from app.mcp.executor import McpExecutor
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics


class Tools(Struct, frozen=True):
    """The room's doors."""

    executor: McpExecutor
    waiting: Waiting
    admin: Admin
    serve: ASGIApp


async def open_tools(settings: Settings, shared: Shared, metrics: Metrics, stack: AsyncExitStack) -> Tools:
    """The MCP room, closed by `stack`. Raises `StartError` for a key that cannot be used."""
    mcp = settings.mcp
    if mcp.allow_loopback is None:
        mcp = structs.replace(mcp, allow_loopback=shared.needs_no_key)
    kept = shared.over(mcp, open_secrets(settings, shared.keyring), stack)
    behind = Behind(books=kept.books, vault=kept.vault, tell=calls_to(kept.log, shared.clock), wall=shared.clock.now)
    executor = McpExecutor(mcp, observe=count_call(metrics), behind=behind)
    stack.push_async_callback(executor.close)
    sweep = settings.history.sweep_secs
    waiting = await open_waiting(shared.database, kept.books, kept.sealer, shared.clock, sweep, stack)
    seconds = settings.responses.approval_secs
    serve = await open_served(mcp, shared, kept, executor, waiting.approvals, seconds, stack)
    admin = open_admin(mcp, shared, kept, executor, waiting)
    return Tools(executor, waiting, admin, serve)
