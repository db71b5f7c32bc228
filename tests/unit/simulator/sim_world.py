"""A simulated worker on a loopback port, in this event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.boot.listening import Listener, bind, url_of
from app.simulator.script import Script
from app.simulator.server import SimulatorApp
from app.simulator.settings import SimulatorSettings
from app.simulator.worker import SimulatedWorker

CHAT = "/v1/chat/completions"


def hello(text: str = "Hello there", **fields: Any) -> dict[str, Any]:
    """The body of a chat request that says `text`."""
    return {"model": "simulated", "messages": [{"role": "user", "content": text}], **fields}


def tool(name: str, **schema: Any) -> dict[str, Any]:
    """A function tool whose parameters are `schema`."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


@asynccontextmanager
async def worker(script: Script | None = None, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a worker with these settings."""
    made = SimulatedWorker(SimulatorSettings(**settings), script or Script(), lambda: 1_700_000_000.0)
    with bind("127.0.0.1", 0) as sock:
        listens = asyncio.Event()
        listener = Listener(SimulatorApp(made), 1, listens.set)
        serving = asyncio.create_task(listener.serve(sockets=[sock]))
        await listens.wait()
        try:
            async with httpx.AsyncClient(base_url=url_of(sock), trust_env=False, timeout=60) as client:
                yield client
        finally:
            listener.should_exit = True
            await serving
