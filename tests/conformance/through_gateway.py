"""What the conformance suite is pointed at: a gateway's `/mcp`, with one server behind it that has the suite's tools.

`python -m tests.conformance.through_gateway FOLDER` prints the address and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import base64
import sys

from mcp import types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import AudioContent, EmbeddedResource, ImageContent, TextContent, TextResourceContents

from app.boot.listening import Stop
from app.boot.serve import serve
from app.db.settings import DatabaseSettings
from app.mcp.settings import McpSettings, OperatorServer
from app.settings.server import ServerSettings
from app.settings.tree import Settings
from tests.support.mcp_servers import mcp_server

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SOUND = base64.b64encode(b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00@\x1f\x00\x00").decode()
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "additionalProperties": False,
}


def suite_server() -> MCPServer:
    """The tools the suite asks for, by the names it asks for them."""
    server = MCPServer("suite")

    def note(uri: str) -> EmbeddedResource:
        text = TextResourceContents(uri=uri, mime_type="text/plain", text="This is an embedded resource content.")
        return EmbeddedResource(type="resource", resource=text)

    @server.tool(structured_output=False)
    def test_simple_text() -> str:
        """Text."""
        return "This is a simple text response for testing."

    @server.tool(structured_output=False)
    def test_image_content() -> ImageContent:
        """An image."""
        return ImageContent(type="image", data=PIXEL, mime_type="image/png")

    @server.tool(structured_output=False)
    def test_audio_content() -> AudioContent:
        """A sound."""
        return AudioContent(type="audio", data=SOUND, mime_type="audio/wav")

    @server.tool(structured_output=False)
    def test_embedded_resource() -> EmbeddedResource:
        """A resource."""
        return note("test://embedded-resource")

    @server.tool(structured_output=False)
    def test_multiple_content_types() -> list[types.ContentBlock]:
        """One of each."""
        return [
            TextContent(type="text", text="Multiple content types test:"),
            ImageContent(type="image", data=PIXEL, mime_type="image/png"),
            note("test://mixed-content-resource"),
        ]

    @server.tool(structured_output=False)
    def test_error_handling() -> str:
        """An error."""
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool(structured_output=False)
    async def test_tool_with_progress(context: Context) -> str:
        """Progress."""
        for done in (0, 50, 100):
            await context.report_progress(done, 100)
            await asyncio.sleep(0.05)
        return "done"

    return server


def say(line: str) -> None:
    """Tell whoever started this."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(folder: str) -> None:
    """Serve until ended."""
    async with mcp_server(suite_server(), json_response=False) as upstream:
        settings = Settings(
            server=ServerSettings(data_dir=folder, port=0),
            db=DatabaseSettings(sqlite_synchronous="normal"),
            mcp=McpSettings(servers=(OperatorServer(label="suite", url=upstream.url),)),
        )
        stop = Stop()
        with stop.on_signals():
            await serve(settings, stop, lambda url: say(f"{url}/mcp"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
