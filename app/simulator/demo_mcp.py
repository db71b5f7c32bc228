"""The demo MCP server: a few tools to show and test a tool loop with, over streamable HTTP.

`python -m app.simulator.demo_mcp --port N` serves it on 127.0.0.1; `shepherd demo` does so by itself.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import EmbeddedResource, TextResourceContents, ToolAnnotations
from pydantic import Field
from starlette.types import ASGIApp

from app.telemetry import logs

_NOTES = (
    "Dolly the sheep was born on 5 July 1996.",
    "A sheepdog can watch over two hundred sheep.",
    "Sheep remember about fifty faces for two years.",
    "The grass behind the hill is greener in May.",
)
# None of the tools looks at anything but its arguments and the notes in this process.
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
_LONGEST = 300.0


def demo_server() -> MCPServer[None]:
    """The server, with notes of its own."""
    server: MCPServer[None] = MCPServer("shepherd-demo", version="1", instructions="Tools for trying things out.")
    notes: list[str] = list(_NOTES)

    # Tools that are coroutines run in the event loop; the others would each take a thread.
    @server.tool(annotations=_READS)
    async def add(a: int, b: int) -> int:
        """Add two whole numbers."""
        return a + b

    @server.tool(annotations=_READS)
    async def search_notes(query: str) -> list[str]:
        """Find the notes that contain a text."""
        return [f"{number}: {note}" for number, note in enumerate(notes, 1) if query.lower() in note.lower()]

    @server.tool(annotations=_READS)
    async def read_note(number: int) -> EmbeddedResource:
        """Read a note, by its number, as a resource."""
        if not 1 <= number <= len(notes):
            raise ToolError(f"There is no note {number}; there are {len(notes)}.")
        note = TextResourceContents(uri=f"note://{number}", mime_type="text/plain", text=notes[number - 1])
        return EmbeddedResource(type="resource", resource=note)

    @server.tool(annotations=_ADDS)
    async def add_note(text: str) -> str:
        """Keep a note until the server ends."""
        notes.append(text)
        return f"This is note {len(notes)}."

    @server.tool(annotations=_READS)
    async def slow(
        seconds: Annotated[float, Field(ge=0, le=_LONGEST)],
        context: Context[None, object],
        steps: Annotated[int, Field(ge=1, le=1000)] = 1,
    ) -> str:
        """Take some seconds, in steps, and report each step as progress."""
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            await context.report_progress(step, steps, f"step {step} of {steps}")
        return f"That took {seconds:g} seconds."

    @server.tool(annotations=_READS)
    async def fail(message: str) -> str:
        """Fail with a message."""
        raise ToolError(message)

    return server


@asynccontextmanager
async def demo_app() -> AsyncGenerator[ASGIApp]:
    """The server as an ASGI application, at `/mcp`, for as long as the block lasts."""
    server = demo_server()
    app = server.streamable_http_app()
    async with server.session_manager.run():
        yield app


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until a signal ends it."""
    async with demo_app() as app:
        config = uvicorn.Config(app, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="The demo MCP server, at /mcp on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=30001)
    port: int = parser.parse_args().port
    logs.configure("info", as_json=False)
    asyncio.run(serve(port))


if __name__ == "__main__":
    main()
