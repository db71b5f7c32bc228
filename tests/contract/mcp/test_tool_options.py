"""What a client sets about a hosted tool reaches the real MCP server that plays it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from mcp.server.mcpserver import Context, MCPServer

from app.mcp.client import OPTIONS_KEY
from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings, OperatorServer
from app.turn.events import CallTool
from app.turn.items import ToolResult
from app.turn.request import NEVER_ASK, McpServer
from tests.support.mcp_servers import mcp_server

LABEL = "role:file_search"


def searcher() -> MCPServer:
    server = MCPServer("searcher")

    @server.tool(structured_output=False)
    def file_search(query: str, context: Context[Any, Any], max_num_results: int = 3) -> str:
        """Say what was asked for, and what was said beside it."""
        meta = dict(context.request_context.meta or {})
        return json.dumps([query, max_num_results, meta.get(OPTIONS_KEY)])

    return server


async def called(options: dict[str, Any], *, listed: bool = True, **arguments: Any) -> ToolResult:
    """What the tool says it was called with."""
    async with mcp_server(searcher()) as running:
        served = OperatorServer(label="files", url=running.url, role="file_search")
        executor = McpExecutor(McpSettings(allow_loopback=True, servers=(served,)))
        given = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in options.items()}
        asked = McpServer(label=LABEL, role="file_search", require_approval=NEVER_ASK, options=given)
        async with executor.open("t", [asked], None) as tools:
            if listed:
                await tools.list_tools(LABEL)
            result = await tools.call(CallTool("c", LABEL, "file_search", json.dumps(arguments)))
        await executor.close()
    return result


async def test_an_option_is_an_argument_where_there_is_one_and_beside_the_call_elsewhere() -> None:
    filters = {"type": "eq", "key": "colour", "value": "black"}
    options = {"max_num_results": 5, "vector_store_ids": ["vs_1"], "filters": filters}
    # A run that begins again has listed nothing.
    for listed in (True, False):
        result = await called(options, listed=listed, query="sheep")
        assert result.error is None
        beside = {"vector_store_ids": ["vs_1"], "filters": filters}
        assert json.loads(str(result.output)) == ["sheep", 5, beside]


async def test_what_the_client_has_set_stands_whatever_the_model_says() -> None:
    result = await called({"max_num_results": 5}, query="sheep", max_num_results=50)
    assert json.loads(str(result.output)) == ["sheep", 5, None]


async def test_without_options_the_model_decides() -> None:
    result = await called({}, query="sheep", max_num_results=7)
    assert json.loads(str(result.output)) == ["sheep", 7, None]
