"""`shepherd demo`: a gateway, a simulated worker and a demo MCP server in one process, and three commands to try.

One process, so that however it ends, everything ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
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
_CLOSE_SECS = 1.0


async def demo(settings: Settings, stop: Stop, say: Callable[[str], None]) -> None:
    """Serve until `stop` is asked for. `say` is told, once all of it listens, how to try it.

    The worker's port is a free one; the MCP server's is the gateway's and one. Raises `StartError` for a busy port.
    """
    port = settings.server.port
    async with AsyncExitStack() as stack:
        mcp = await stack.enter_async_context(_served(demo_app(), port + 1 if port else 0))
        worker = simulated_worker(SimulatorSettings())
        worker_url = await stack.enter_async_context(_served(nullcontext(worker), 0))
        routing = structs.replace(settings.routing, worker_urls=(*settings.routing.worker_urls, worker_url))
        whole = structs.replace(settings, routing=routing)
        await serve(whole, stop, lambda url: say(welcome(url, f"{mcp}/mcp", _interpreter())))


@asynccontextmanager
async def _served(opening: AbstractAsyncContextManager[Any], port: int) -> AsyncGenerator[str]:
    """Serve an app on loopback for as long as the block lasts; its URL. Raises `StartError`.

    The app is opened in the task that serves it, so a task group inside it sees nothing of what the block raises.
    """
    listens, ends = asyncio.Event(), asyncio.Event()

    async def run(sock: socket.socket) -> None:
        async with opening as app:
            listener = Listener(app, _CLOSE_SECS, listens.set)
            serving = asyncio.create_task(listener.serve(sockets=[sock]))
            await _either(serving, ends)
            listener.should_exit = True
            await serving

    with bind(_HOST, port) as sock:
        running = asyncio.create_task(run(sock))
        try:
            await _either(running, listens)
            yield url_of(sock)
        finally:
            ends.set()
            await running


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait until the task is done or the event is set."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


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
