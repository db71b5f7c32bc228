"""What MCP costs here: our call over the bare SDK's, a session's memory, calls a second.

`python -m bench.mcp` starts a small server as a process of its own and prints a table. Times are in milliseconds; both
sides share this machine, so compare rows of one run only. CPU is this process's alone, and means more where others are
busy on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from app.mcp.behind import Behind
from app.mcp.books import MemoryBooks, Registered
from app.mcp.executor import McpExecutor
from app.mcp.rules import ServerConfig
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK, McpServer
from bench.mcp_books import sqlite
from bench.mcp_server import tiny


async def timed(work: Callable[[], Awaitable[object]], times: int) -> str:
    """The median and the 99th percentile of `work`, and this process's CPU for one, in milliseconds."""
    for _ in range(20):
        await work()
    took: list[float] = []
    spent = time.process_time()
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    spent = (time.process_time() - spent) / times * 1000
    return f"p50 {statistics.median(took):.2f}  p99 {statistics.quantiles(took, n=100)[98]:.2f}  CPU {spent:.2f}"


def row(what: str, value: str) -> None:
    """A line of the table."""
    print(f"{what:<58} {value}", flush=True)


def memory() -> int:
    """The proportional share of memory of this process, in KiB."""
    gc.collect()
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


CALL = CallTool("c", "tiny", "echo", '{"text": "hello"}')


async def of_sdk(url: str, times: int) -> None:
    """Calls with the bare SDK, over one open client."""
    async with (
        httpx2.AsyncClient(trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), cache=None) as client,
    ):
        await client.list_tools()
        row("tools/call, bare SDK", await timed(lambda: client.call_tool("echo", {"text": "hello"}), times))


async def of_ours(url: str, times: int) -> None:
    """Calls through the executor: to a request's own server, and to a registered, pinned one in the database."""
    executor = McpExecutor(McpSettings(allow_loopback=True), behind=Behind(books=MemoryBooks()))
    tools = await executor.tools(Owner("t"), [McpServer(label="tiny", url=url, require_approval=NEVER_ASK)], None)
    row("tools/call, executor, server of the request", await timed(lambda: tools.call(CALL), times))
    for parallel in (1, 8, 32):
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(many(lambda: tools.call(CALL), times // parallel) for _ in range(parallel)))
        made = times // parallel * parallel
        rate, of_cpu = made / (time.perf_counter() - began), made / (time.process_time() - spent)
        row(f"calls a second, {parallel} at once, one session", f"{rate:.0f}  ({of_cpu:.0f} of CPU)")
    await executor.close()
    async with sqlite() as books:
        config = ServerConfig(url=url)
        made = Registered(
            tenant="t", label="tiny", id="srv_1", version=1, config=config, enabled=True, created_at=0, updated_at=0
        )
        await books.add(made)
        executor = McpExecutor(McpSettings(allow_loopback=True), behind=Behind(books=books))
        tools = await executor.tools(Owner("t"), [McpServer(label="tiny", require_approval=NEVER_ASK)], None)
        row("tools/call, executor, registered server (SQLite)", await timed(lambda: tools.call(CALL), times))
        await executor.close()


async def many(work: Callable[[], Awaitable[object]], times: int) -> None:
    """`work`, so many times."""
    for _ in range(times):
        await work()


async def of_sessions(url: str, count: int) -> None:
    """Idle sessions: what each takes, and how long closing them all takes."""
    executor = McpExecutor(McpSettings(allow_loopback=True, max_sessions_per_tenant=count + 1))
    server = McpServer(label="tiny", url=url, require_approval=NEVER_ASK)
    await (await executor.tools(Owner("warm"), [server], None)).call(CALL)
    before = memory()
    began = time.perf_counter()
    for number in range(count):
        tools = await executor.tools(Owner("t", f"user{number}"), [server], None)
        assert (await tools.call(CALL)).error is None
    opened = time.perf_counter() - began
    each = (memory() - before) / count
    row(f"{count} idle sessions: memory of each", f"{each:.0f} KiB ({1024 / each:.0f} in a MiB)" if each > 0 else "-")
    row(f"{count} idle sessions: opening and one call, each", f"{opened / count * 1000:.2f}")
    began = time.perf_counter()
    await executor.close()
    row(f"{count} idle sessions: closing all", f"{(time.perf_counter() - began) * 1000:.0f}")


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=200)
    asked = parser.parse_args()
    with tiny() as url:
        await of_sdk(url, asked.calls)
        await of_ours(url, asked.calls)
        await of_sessions(url, asked.sessions)


if __name__ == "__main__":
    asyncio.run(main())
