"""An MCP server whose tools ask the user: `python -m tests.support.asking_server --port N --ledger FILE [--legacy]`.
Without a port it is served over its standard streams.

The newer protocol's clients get what is asked as the result of a call; older ones (`--legacy`) are asked while the call
waits. Each call that comes to its end writes a line to the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import uvicorn
from mcp import types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp.shared.message import SessionMessage
from pydantic import BaseModel, Field

from tests.support.mcp_servers import MODERN
from tests.support.ports import free_port
from tests.support.processes import ROOT, bare_process

TERMS_URL = "https://shop.example/terms?order=1"


class Guest(BaseModel):
    """Who comes."""

    name: str
    nights: int = Field(ge=1, le=30)


class Dinner(BaseModel):
    """Whether they eat."""

    dinner: bool


async def ask_guest() -> Elicit[Guest]:
    """Who comes?"""
    await asyncio.sleep(0)
    return Elicit("Who is coming?", Guest)


async def ask_dinner() -> Elicit[Dinner]:
    """Do they eat?"""
    await asyncio.sleep(0)
    return Elicit("With dinner?", Dinner)


def asking_server(ledger: Path) -> MCPServer[None]:
    """`book` asks one thing, `stay` two, `buy` sends the user to a page first; `add` asks nothing."""
    server: MCPServer[None] = MCPServer("asking")
    agreed: set[str] = set()

    def done(said: str) -> str:
        with ledger.open("a") as file:
            file.write(said + "\n")
        return said

    @server.tool(structured_output=False)
    async def book(place: str, guest: Annotated[Guest, Resolve(ask_guest)]) -> str:
        """Book a room."""
        return done(f"booked {place} for {guest.name}, {guest.nights} nights")

    @server.tool(structured_output=False)
    async def stay(
        place: str, guest: Annotated[Guest, Resolve(ask_guest)], dinner: Annotated[Dinner, Resolve(ask_dinner)]
    ) -> str:
        """Book a room with or without dinner."""
        return done(f"stay at {place}: {guest.name}, dinner {dinner.dinner}")

    @server.tool(structured_output=False)
    async def buy(order: str) -> str:
        """Buy something whose terms have to be read first."""
        if order not in agreed:
            agreed.add(order)
            asked = types.ElicitRequestURLParams(message="Read the terms.", url=TERMS_URL, elicitation_id=order)
            raise UrlElicitationRequiredError([asked])
        return done(f"bought {order}")

    @server.tool(structured_output=False)
    async def sneak(url: str) -> str:
        """Send the user somewhere."""
        asked = types.ElicitRequestURLParams(message="Come here.", url=url, elicitation_id="1")
        raise UrlElicitationRequiredError([asked])

    @server.tool(structured_output=False)
    async def able(context: Context[Any, Any]) -> str:
        """Whether this client says that it can ask its user."""
        wanted = types.ClientCapabilities(elicitation=types.ElicitationCapability())
        return str(context.session.check_client_capability(wanted))

    @server.tool(structured_output=False)
    async def add(a: int, b: int) -> str:
        """Add."""
        return done(str(a + b))

    return server


class Older:
    """Knows no protocol version newer than 2025-11-25."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if headers.get(b"mcp-protocol-version") != MODERN.encode():
            await self._app(scope, receive, send)
            return
        fault = {"code": -32600, "message": "Bad Request: Unsupported protocol version"}
        body = json.dumps({"jsonrpc": "2.0", "id": None, "error": fault}).encode()
        await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


async def serve(port: int, ledger: Path, *, legacy: bool) -> None:
    """Serve on 127.0.0.1 until a signal ends it."""
    server = asking_server(ledger)
    app = server.streamable_http_app(json_response=not legacy)
    async with server.session_manager.run():
        whole = Older(app) if legacy else app
        config = uvicorn.Config(whole, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


async def serve_pipes(ledger: Path, *, legacy: bool) -> None:
    """Serve over standard input and output until that ends."""
    server = asking_server(ledger)
    if not legacy:
        await server.run_stdio_async()
        return
    known, heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)

    async def hear(said: Any, answers: Any) -> None:
        # A server of the older protocol does not know the newer one's first question.
        async with known:
            async for message in said:
                asked = getattr(message, "message", None)
                if isinstance(asked, types.JSONRPCRequest) and asked.method == "server/discover":
                    fault = types.ErrorData(code=-32601, message="Method not found")
                    refusal = types.JSONRPCError(jsonrpc="2.0", id=asked.id, error=fault)
                    await answers.send(SessionMessage(refusal))
                else:
                    await known.send(message)

    async with stdio_server() as (said, answers), anyio.create_task_group() as tasks:
        tasks.start_soon(hear, said, answers)
        inner = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        await inner.run(heard, answers, inner.create_initialization_options())


def pipes(ledger: Path, *, legacy: bool) -> str:
    """The server as an operator configures it: a command, in YAML."""
    words = [sys.executable, "-m", "tests.support.asking_server", "--ledger", str(ledger)]
    command = json.dumps([*words, *(["--legacy"] if legacy else [])])
    return f"command: {command}\n      env: {{PYTHONPATH: {json.dumps(str(ROOT))}}}"


@contextmanager
def asking_mcp_server(ledger: Path, *, legacy: bool = False) -> Generator[str]:
    """The server as a process of its own; its URL."""
    port = free_port()
    flags = ["--port", str(port), "--ledger", str(ledger), *(["--legacy"] if legacy else [])]
    with bare_process([sys.executable, "-m", "tests.support.asking_server", *flags]) as running:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert running.poll() is None, "the asking MCP server ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--legacy", action="store_true")
    parsed = parser.parse_args()
    if parsed.port is None:
        asyncio.run(serve_pipes(parsed.ledger, legacy=parsed.legacy))
    else:
        asyncio.run(serve(parsed.port, parsed.ledger, legacy=parsed.legacy))


if __name__ == "__main__":
    main()
