"""A server that misbehaves and one that does not, used by one run, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest

from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings
from app.responses.ports import Asking, McpServer, ToolSession
from app.turn.events import CallTool
from app.turn.items import ToolResult
from app.turn.request import NEVER_ASK
from tests.support.mcp_servers import Behaviour, Running, raw_server
from tests.support.waiting import eventually

Used: TypeAlias = tuple[ToolSession, Running, McpExecutor]
Using: TypeAlias = Callable[..., AbstractAsyncContextManager[Used]]


def poke(call_id: str = "c1", server: str = "raw", **arguments: object) -> CallTool:
    """A call of the one tool that raw servers have."""
    return CallTool(call_id, server, "poke", json.dumps(arguments))


async def begun(tools: ToolSession, server: Running, call: CallTool) -> asyncio.Task[ToolResult | Asking]:
    """A call that the server has got."""
    before = server.count("tools/call")
    task = asyncio.create_task(tools.call(call))
    await eventually(lambda: server.count("tools/call") > before or task.done())
    return task


async def side_by_side(
    tools: ToolSession, server: Running, over: asyncio.Event
) -> tuple[ToolResult | Asking, ToolResult | Asking]:
    """What comes of a bad call, and of a slow one that was there before and is answered once the bad one is `over`."""
    slow = await begun(tools, server, poke("c2", slow=True))
    bad = await tools.call(poke(bad=True))
    over.set()
    return bad, await slow


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def beside_another(on: Mapping[str, Behaviour], *, modern: bool, **settings: Any) -> AsyncIterator[Used]:
    """A server that is polite except `on` some methods. Whatever it did, the server beside it is asked at the end."""
    executor = McpExecutor(McpSettings(allow_loopback=True, **settings))
    try:
        async with raw_server(on, modern=modern) as bad, raw_server({}, modern=modern) as good:
            servers = [
                McpServer(label=label, url=server.url, require_approval=NEVER_ASK)
                for label, server in (("raw", bad), ("other", good))
            ]
            async with executor.open("t", servers, None) as tools:
                yield tools, bad, executor
                assert (await tools.list_tools("other")).error is None
                assert (await tools.call(poke(server="other"))).output == "poked"
    finally:
        await executor.close()


@pytest.fixture
def using(era: str) -> Using:
    """`beside_another`, in the era of the test."""

    def use(on: Mapping[str, Behaviour], **settings: Any) -> AbstractAsyncContextManager[Used]:
        return beside_another(on, modern=era == "modern", **settings)

    return use
