"""The MCP servers of a run, as the port the runner knows: which tools there are, and calling them.

What may be called is checked again at each call: a model can name tools it was never shown.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx2
import msgspec
from msgspec import Struct, structs

from app.mcp import telemetry
from app.mcp.client import Answer, Link, connect, network
from app.mcp.failure import INVALID_PARAMS, McpFailure, broken, clip
from app.mcp.servers import Target, resolve
from app.mcp.sessions import Pool
from app.mcp.settings import McpSettings
from app.responses.ports import McpServer, ToolSession
from app.turn.events import CallTool, ToolsListed
from app.turn.items import Terms, ToolError, ToolKind, ToolListing, ToolResult, ToolSpec

_T = TypeVar("_T")
_ERROR_TEXT = 2000


class _Hints(Struct, rename="camel"):
    read_only_hint: bool | None = None


class McpExecutor:
    """`ToolExecutor` over MCP. `observe` is told the outcome ("ok" or an error's kind) and seconds of each call."""

    def __init__(self, settings: McpSettings, *, observe: Callable[[str, float], None] | None = None) -> None:
        self._settings = settings
        self._observe = observe
        self._network: httpx2.AsyncBaseTransport = network(settings)
        self._pool = Pool(settings, lambda target: connect(target, settings, self._network))

    @asynccontextmanager
    async def open(
        self, tenant: str, servers: Sequence[McpServer], conversation: str | None, principal: str = ""
    ) -> AsyncGenerator[ToolSession, None]:
        """The tools of one run. Connects to nothing yet. Raises `InvalidRequest` for servers that cannot be used."""
        del principal
        targets = resolve(servers, self._settings.servers)
        yield _RunTools(self._pool, tenant, targets, conversation, self._called)

    def plays(self, role: ToolKind) -> bool:
        """Whether the operator has a server that plays this hosted tool."""
        return any(server.role == role for server in self._settings.servers)

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._pool)

    async def close(self) -> None:
        """Close all sessions, within the close timeout, and all connections."""
        await self._pool.close()
        await self._network.aclose()

    def _called(self, call: CallTool, outcome: str, seconds: float) -> None:
        telemetry.called(call.server_label, call.tool, outcome, seconds)
        if self._observe is not None:
            self._observe(outcome, seconds)


class _RunTools:
    """`ToolSession` of one run."""

    def __init__(
        self,
        pool: Pool,
        tenant: str,
        targets: dict[str, Target],
        conversation: str | None,
        called: Callable[[CallTool, str, float], None],
    ) -> None:
        self._pool = pool
        self._tenant = tenant
        self._targets = targets
        self._conversation = conversation
        self._called = called
        self._allowed: dict[str, frozenset[str]] = {}

    async def list_tools(self, server_label: str) -> ToolsListed:
        """The tools this request may use, in the server's order, or why there are none."""
        try:
            return ToolsListed(server_label, await self._tools(self._target(server_label)))
        except McpFailure as failure:
            return ToolsListed(server_label, error=failure.error)

    def recall(self, listing: ToolListing) -> ToolListing:
        """The listing under this request's rule of approval."""
        target = self._targets.get(listing.server_label)
        return listing if target is None else structs.replace(listing, tools=_ruled(target, listing.tools))

    async def call(self, call: CallTool) -> ToolResult:
        """Execute the call. What goes wrong is in the result, also as text for the model."""
        began = time.monotonic()
        outcome = "cancelled"
        try:
            result = await self._execute(call)
            outcome = result.error.kind if result.error is not None else "ok"
        except McpFailure as failure:
            outcome = failure.error.kind
            result = ToolResult(call.call_id, failure.error.message, failure.error)
        finally:
            self._called(call, outcome, time.monotonic() - began)
        return result

    async def may_repeat(self, call: CallTool) -> bool:
        """By the operator's word about a server of their own; a server's own word is not enough."""
        target = self._targets.get(call.server_label)
        return target is not None and call.tool in target.repeatable

    def _target(self, label: str) -> Target:
        target = self._targets.get(label)
        if target is None:
            raise broken(f"This request has no MCP server '{label}'.", INVALID_PARAMS)
        return target

    async def _tools(self, target: Target) -> tuple[ToolSpec, ...]:
        offered = await self._on(target, Link.list_tools, again=True)
        tools = tuple(
            tool for tool in offered if target.permits(tool.name) and (not target.read_only or _only_reads(tool))
        )
        self._allowed[target.label] = frozenset(tool.name for tool in tools)
        return _ruled(target, tools)

    async def _execute(self, call: CallTool) -> ToolResult:
        target = self._target(call.server_label)
        await self._check(target, call.tool)
        arguments = _arguments(call.arguments)

        async def ask(link: Link) -> Answer:
            return await link.call(call.tool, arguments, key=call.key)

        answer = await self._on(target, ask, again=False)
        if not answer.is_error:
            return ToolResult(call.call_id, answer.text)
        return ToolResult(
            call.call_id, answer.text, ToolError("mcp_tool_execution_error", clip(answer.text, _ERROR_TEXT))
        )

    async def _check(self, target: Target, tool: str) -> None:
        """Raises `McpFailure` for a tool this request may not call; what only reads is known from a listing."""
        permitted = target.permits(tool)
        if permitted and target.read_only:
            if target.label not in self._allowed:
                await self._tools(target)
            permitted = tool in self._allowed[target.label]
        if not permitted:
            raise broken(f"Tool '{clip(tool, 128)}' of MCP server '{target.label}' is not allowed.", INVALID_PARAMS)

    async def _on(self, target: Target, ask: Callable[[Link], Awaitable[_T]], *, again: bool) -> _T:
        """Ask over a session; over a second one if the first is lost and the server did nothing, or `again` is safe."""
        try:
            return await self._once(target, ask)
        except McpFailure as failure:
            if not (failure.refused or (again and failure.lost)):
                raise
        return await self._once(target, ask)

    async def _once(self, target: Target, ask: Callable[[Link], Awaitable[_T]]) -> _T:
        async with self._pool.lease(self._tenant, target, self._conversation) as (session, link):
            try:
                return await ask(link)
            except McpFailure as failure:
                if failure.lost:
                    session.retire()
                raise


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise broken("The arguments of the tool call are not a JSON object.", INVALID_PARAMS) from None


def _ruled(target: Target, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """The tools with what the request says of asking before they are called."""
    return tuple(
        structs.replace(
            tool,
            approval="ask" if target.approval.asks(tool.tool or tool.name, read_only=_only_reads(tool)) else "never",
            terms=Terms(target.place, _definition(tool), ""),
        )
        for tool in tools
    )


def _definition(tool: ToolSpec) -> str:
    """What stands for the tool as the server defines it."""
    said = (tool.tool or tool.name, tool.description, tool.parameters, tool.annotations)
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def _only_reads(tool: ToolSpec) -> bool:
    if tool.annotations is None:
        return False
    return msgspec.json.decode(tool.annotations, type=_Hints).read_only_hint is True
