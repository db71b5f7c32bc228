"""The other way round: a tenant's tools, of all its servers, for any MCP client.

What may be called, by whom and under which limits is decided where it always is (`run.py`); so is what is written to
the audit log. A call that takes a person's word has nowhere to ask for it here, so such tools are not served. Nothing
is kept between requests: any replica can answer any of them, and there is no session to steal.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from msgspec import Struct

from app.mcp.books import Books
from app.mcp.executor import McpExecutor
from app.mcp.failure import INVALID_PARAMS, McpFailure
from app.mcp.run import RunTools
from app.mcp.served import Reports, result_of, shown
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.responses.naming import offered
from app.turn.events import CallTool
from app.turn.items import ToolSpec
from app.turn.request import NEVER_ASK, McpServer

_log = logging.getLogger(__name__)
_MOST_KEPT = 1_000
_KEPT_SECS = 5.0


class _Catalogue(Struct, frozen=True):
    """A principal's tools, by the names clients know them by, as they were a moment ago."""

    run: RunTools
    tools: Mapping[str, ToolSpec]
    until: float


class ToolServer:
    """An MCP server. `who` tells whose request a scope belongs to; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        executor: McpExecutor,
        books: Books,
        settings: McpSettings,
        who: Callable[[Any], Owner],
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._books = books
        self._settings = settings
        self._who = who
        self._clock = clock
        self._kept: OrderedDict[Owner, _Catalogue] = OrderedDict()

    @asynccontextmanager
    async def running(self, hosts: Sequence[str]) -> AsyncGenerator[StreamableHTTPSessionManager]:
        """The server, for as long as the block lasts. Requests to other `hosts` than these are refused."""
        server: Server[Any] = Server(
            "shepherd",
            version=version("shepherd"),
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        security = TransportSecuritySettings(
            allowed_hosts=list(hosts),
            allowed_origins=[f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")],
        )
        manager = StreamableHTTPSessionManager(server, stateless=True, security_settings=security)
        async with manager.run():
            yield manager

    async def _list(
        self, context: ServerRequestContext[Any, Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        catalogue = await self._catalogue(context)
        return types.ListToolsResult(tools=[shown(name, spec) for name, spec in catalogue.tools.items()])

    async def _call(
        self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        catalogue = await self._catalogue(context)
        spec = catalogue.tools.get(params.name)
        if spec is None:
            raise MCPError(INVALID_PARAMS, f"There is no tool '{params.name[:128]}'.")
        arguments = msgspec.json.encode(params.arguments or {}).decode()
        call = CallTool(str(context.request_id), spec.server_label or "", spec.tool or spec.name, arguments)
        reports = Reports(context)
        try:
            answer = await catalogue.run.answer(call, reports.note)
        except McpFailure as failure:
            text = types.TextContent(type="text", text=failure.error.message)
            return types.CallToolResult(content=[text], is_error=True)
        finally:
            await reports.close()
        return result_of(answer)

    async def _catalogue(self, context: ServerRequestContext[Any, Any]) -> _Catalogue:
        assert context.request is not None
        owner = self._who(context.request.scope)
        kept = self._kept.get(owner)
        if kept is not None and self._clock() < kept.until:
            return kept
        labels = [server.label for server in self._settings.servers]
        labels += [server.label for server in await self._books.servers(owner.tenant) if server.enabled]
        run = await self._executor.tools(
            owner, [McpServer(label=label, require_approval=NEVER_ASK) for label in labels], None
        )
        listings: dict[str, Sequence[ToolSpec]] = {}
        for listed in await asyncio.gather(*(run.list_tools(label) for label in labels)):
            if listed.error is not None:
                _log.warning("MCP server left out: %s", listed.error.message)
            listings[listed.server_label] = [tool for tool in listed.tools if tool.approval == "never"]
        tools = {spec.name: spec for spec in offered((), listings)}
        made = self._kept[owner] = _Catalogue(run, tools, self._clock() + _KEPT_SECS)
        self._kept.move_to_end(owner)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return made
