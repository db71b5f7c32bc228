"""The other way round: a tenant's tools, of all its servers, for any MCP client.

What may be called, by whom and under which limits is decided where it always is (`run.py`); so is what is written to
the audit log. A call that takes a person's word is refused until it has that (`permits.py`). Nothing is kept between
requests: any replica can answer any of them, and there is no session to steal.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from app.mcp.catalogue import Catalogue, Catalogues
from app.mcp.failure import INVALID_PARAMS, McpFailure
from app.mcp.served import Reports, refusal_of, result_of, shown
from app.mcp.sessions import Owner
from app.turn.events import CallTool


class ToolServer:
    """An MCP server. `who` tells whose request an ASGI scope belongs to."""

    def __init__(self, catalogues: Catalogues, who: Callable[[Any], Owner]) -> None:
        self._catalogues = catalogues
        self._who = who

    @asynccontextmanager
    async def running(self, hosts: Sequence[str]) -> AsyncGenerator[StreamableHTTPSessionManager]:
        """The server, for as long as the block lasts. Requests to other `hosts` than these are refused."""
        server: Server[Any] = Server(
            "shepherd", version=version("shepherd"), on_list_tools=self._list, on_call_tool=self._call
        )
        origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
        security = TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=origins)
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
        # Sorted, so that the same call is the same text however its client writes it.
        arguments = msgspec.json.encode(params.arguments or {}, order="deterministic").decode()
        call = CallTool(str(context.request_id), spec.server_label or "", spec.tool or spec.name, arguments)
        reports = Reports(context)
        try:
            answer = await catalogue.run.answer(call, reports.note)
        except McpFailure as failure:
            return refusal_of(failure)
        finally:
            await reports.close()
        return result_of(answer)

    async def _catalogue(self, context: ServerRequestContext[Any, Any]) -> Catalogue:
        assert context.request is not None
        return await self._catalogues.of(self._who(context.request.scope))
