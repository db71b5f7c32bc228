"""The MCP room at start: the executor over what tenants' admins decided, and what those admins use."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import cast
from urllib.parse import urlsplit

from litestar.types import ASGIApp
from msgspec import Struct, structs

from app.api.admin.rooms import Admin
from app.api.mcp import owner_of
from app.boot.auditing import acts_to, calls_to
from app.boot.metered import count_call
from app.boot.sealed import open_sealer
from app.db.engine import Database
from app.mcp.admin import McpAdmin
from app.mcp.approval_store import SqlApprovals
from app.mcp.behind import Behind
from app.mcp.enrolment import Enrolments
from app.mcp.executor import McpExecutor, executor_network
from app.mcp.keeping import Keeping
from app.mcp.sealed_vault import SealedVault
from app.mcp.serving import ToolServer
from app.mcp.settings import McpSettings
from app.mcp.store import SqlBooks
from app.responses.ports import Clock
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics
from app.tenancy.audit import AuditLog
from app.turn.ids import IdSource


class Tools(Struct, frozen=True):
    """What runs call, what waits for approval, what admins use, and what serves MCP clients."""

    executor: McpExecutor
    approvals: SqlApprovals
    admin: Admin
    serve: ASGIApp


class World(Struct, frozen=True, kw_only=True):
    """What this room needs. `needs_no_key`: everyone is the default tenant, who may use servers on this machine."""

    database: Database
    clock: Clock
    ids: IdSource
    metrics: Metrics
    needs_no_key: bool


async def open_tools(settings: Settings, world: World, stack: AsyncExitStack) -> Tools:
    """The MCP room, closed by `stack`. Raises `StartError` for a key that cannot be used."""
    mcp = settings.mcp
    if mcp.allow_loopback is None:
        mcp = structs.replace(mcp, allow_loopback=world.needs_no_key)
    books, log, sealer = SqlBooks(world.database), AuditLog(world.database), open_sealer(settings)
    network = executor_network(mcp)
    vault = SealedVault(world.database, sealer, world.clock, network)
    behind = Behind(books=books, vault=vault, tell=calls_to(log, world.clock), wall=world.clock.now)
    executor = McpExecutor(mcp, observe=count_call(world.metrics), behind=behind)
    stack.push_async_callback(network.aclose)
    stack.push_async_callback(executor.close)
    approvals = SqlApprovals(world.database, books, sealer, world.clock)

    acted = acts_to(log, world.clock)
    admin = McpAdmin(executor, books, mcp, world.clock, world.ids, acted)
    enrolments = Enrolments(world.database, books, vault, network, mcp.public_url or "")
    keeping = Keeping(executor, books, vault, enrolments, sealer, world.clock, acted)
    rooms = Admin(mcp=admin, keeping=keeping, approvals=approvals, audit=log, now=world.clock.now)
    server = ToolServer(executor, books, mcp, owner_of, time.monotonic)
    serving = await stack.enter_async_context(server.running(_hosts(mcp)))
    return Tools(executor, approvals, rooms, cast("ASGIApp", serving.handle_request))


def _hosts(mcp: McpSettings) -> list[str]:
    public = urlsplit(mcp.public_url or "").netloc
    return ["127.0.0.1:*", "localhost:*", "[::1]:*", *mcp.served_hosts, *([public] if public else [])]
