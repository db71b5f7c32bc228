"""An MCP server with countable effects: `python -m tests.support.effects_server --port N --ledger FILE`.

Each call that reaches a tool writes a line to the ledger before it does anything else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer


def effects_server(ledger: Path) -> MCPServer[None]:
    """`charge` must not happen twice; `look` may. `wait` has none, and ends when it is let."""
    server: MCPServer[None] = MCPServer("effects")

    def note(tool: str, context: Context[Any, Any], arguments: dict[str, object]) -> None:
        meta: Any = context.request_context.meta or {}
        line = {"tool": tool, "key": meta.get("shepherd/idempotency-key"), **arguments}
        with ledger.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @server.tool()
    async def charge(number: int, context: Context, seconds: float = 0.0) -> str:
        """Take money."""
        note("charge", context, {"number": number})
        await asyncio.sleep(seconds)
        return f"charged {number}"

    @server.tool()
    async def look(number: int, context: Context, seconds: float = 0.0) -> str:
        """Look at something."""
        note("look", context, {"number": number})
        await asyncio.sleep(seconds)
        return f"saw {number}"

    @server.tool()
    async def wait(gate: str) -> str:
        """Wait until that file is there."""
        while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.01)
        return "Here we are."

    return server


async def serve(port: int, ledger: Path) -> None:
    """Serve on 127.0.0.1 until a signal ends it."""
    server = effects_server(ledger)
    app = server.streamable_http_app()
    async with server.session_manager.run():
        config = uvicorn.Config(app, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parsed = parser.parse_args()
    asyncio.run(serve(parsed.port, parsed.ledger))


if __name__ == "__main__":
    main()
