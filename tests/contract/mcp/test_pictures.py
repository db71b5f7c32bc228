"""What a real MCP server draws reaches the client whole, and the model as a line that says what it was."""

from __future__ import annotations

import base64
from typing import Literal

import pytest
from mcp.server.mcpserver import Image, MCPServer

from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings, OperatorServer
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK, McpServer
from tests.support.mcp_servers import mcp_server

DRAWN = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def artist() -> MCPServer:
    server = MCPServer("artist")

    @server.tool(structured_output=False)
    def draw(prompt: str) -> list[str | Image]:
        """Draw it."""
        return [f"drew {prompt}", Image(data=DRAWN, format="png")]

    return server


@pytest.mark.parametrize(("role", "shown"), [("image_generation", True), ("code_interpreter", False)])
async def test_a_picture_is_told_where_a_picture_was_asked_for(
    role: Literal["image_generation", "code_interpreter"], shown: bool
) -> None:
    label = f"role:{role}"
    async with mcp_server(artist()) as running:
        # Far less than the picture: what the model reads is cut, a picture is not.
        served = OperatorServer(label="artist", url=running.url, role=role)
        executor = McpExecutor(McpSettings(allow_loopback=True, servers=(served,), max_result_bytes=1024))
        asked = McpServer(label=label, role=role, require_approval=NEVER_ASK)
        async with executor.open("t", [asked], None) as tools:
            result = await tools.call(CallTool("c", label, "draw", '{"prompt": "a sheep"}'))
        await executor.close()
    assert result.error is None
    assert isinstance(result.output, str)
    assert result.output.startswith("drew a sheep\n")
    assert len(result.output) < 1024
    assert result.picture == (base64.b64encode(DRAWN).decode() if shown else None)
