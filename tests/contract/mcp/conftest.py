"""A server that misbehaves and one that does not, used by one run, in both eras of the protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest

from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings
from app.responses.ports import McpServer, ToolSession
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK
from tests.support.mcp_servers import Behaviour, Running, raw_server

Used: TypeAlias = tuple[ToolSession, Running, McpExecutor]
Using: TypeAlias = Callable[..., AbstractAsyncContextManager[Used]]


def poke(call_id: str = "c1", server: str = "raw", **arguments: object) -> CallTool:
    """A call of the one tool that raw servers have."""
    return CallTool(call_id, server, "poke", json.dumps(arguments))


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
