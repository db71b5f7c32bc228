"""`shepherd demo`: a gateway, a simulated worker and a demo MCP server in one process, and three commands to try.

One process, so that however it ends, everything ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec import structs

from app.boot.listening import Listener, Stop, bind, url_of
from app.boot.serve import serve
from app.boot.simulate import simulated_worker
from app.settings.tree import Settings
from app.simulator.demo_mcp import demo_app
from app.simulator.settings import SimulatorSettings

_HOST = "127.0.0.1"


async def demo(settings: Settings, stop: Stop, say: Callable[[str], None]) -> None:
    """Serve until `stop` is asked for. `say` is told, once all of it listens, how to try it.

    The worker's port is a free one; the MCP server's is the gateway's and one. Raises `StartError` for a busy port.
    """
    port = settings.server.port
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(demo_app())
        mcp = await stack.enter_async_context(_served(tools, port + 1 if port else 0))
        worker = await stack.enter_async_context(_served(simulated_worker(SimulatorSettings()), 0))
        routing = structs.replace(settings.routing, worker_urls=(*settings.routing.worker_urls, worker))
        whole = structs.replace(settings, routing=routing)
        await serve(whole, stop, lambda url: say(welcome(url, f"{mcp}/mcp", _interpreter())))


@asynccontextmanager
async def _served(app: Any, port: int) -> AsyncGenerator[str]:
    """Serve an app on loopback for as long as the block lasts; its URL. Raises `StartError`."""
    listens = asyncio.Event()
    with bind(_HOST, port) as sock:
        listener = Listener(app, 1, listens.set)
        serving = asyncio.create_task(listener.serve(sockets=[sock]))
        try:
            await asyncio.wait({serving, (up := asyncio.ensure_future(listens.wait()))}, return_when="FIRST_COMPLETED")
            up.cancel()
            yield url_of(sock)
        finally:
            listener.should_exit = True
            await serving


def _interpreter() -> str:
    """This interpreter, as short as it can be said from here."""
    short = os.path.relpath(sys.executable)
    return sys.executable if short.startswith(os.pardir) else str(Path(short))


def welcome(url: str, mcp_url: str, python: str) -> str:
    """What the demo says when it is ready: three commands, each between blank lines, to be copied as they are."""
    tool = f'{{"type": "mcp", "server_label": "demo", "server_url": "{mcp_url}", "require_approval": "never"}}'
    missing = "" if find_spec("openai") else f"\n(first: .tools/bin/uv pip install -p {python} openai)\n"
    return f"""
Shepherd listens on {url} in front of a simulated worker (models: simulated, simulated-reasoning);
the API is at {url}/docs, a demo MCP server at {mcp_url}. Try:

1. curl

curl -s {url}/v1/responses -H 'content-type: application/json' -d '{{
  "model": "simulated",
  "input": "Hello there!"
}}'

2. the openai SDK, with a tool of the MCP server
{missing}
{python} - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
response = client.responses.create(
    model="simulated",
    input='add {{"a": 20, "b": 22}}',
    tools=[{tool}],
)
print(response.output_text)
END

3. streaming, with two tools at once

curl -sN {url}/v1/responses -H 'content-type: application/json' -d '{{
  "model": "simulated-reasoning",
  "input": "add {{\\"a\\": 1, \\"b\\": 2}} and search_notes {{\\"query\\": \\"sheep\\"}}",
  "stream": true,
  "tools": [{tool}]
}}'

Ctrl-C ends it all.
"""
