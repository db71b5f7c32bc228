"""Real MCP servers for tests: the SDK's over uvicorn on loopback, in every mode, and raw ones that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from msgspec import Struct, field

MODERN = "2026-07-28"
LEGACY = "2025-11-25"


class Seen(Struct, frozen=True):
    """A request a server got."""

    method: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def rpc(self) -> str:
        """Its JSON-RPC method, empty for answers and requests without a body."""
        return self.body.get("method", "")


class Running(Struct):
    """A server that runs. `seen` is what arrived over HTTP."""

    url: str
    port: int
    seen: list[Seen] = field(default_factory=list)

    def count(self, rpc: str) -> int:
        """How many requests of this JSON-RPC method arrived."""
        return sum(1 for each in self.seen if each.rpc == rpc)


class Notes:
    """What happened inside the tools of `demo()`: names of calls, in the order of what happened to them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.most_running = 0
        self.together = 0
        """How many calls of `slow` must run at once before any of them begins to take its while."""
        self._changed = asyncio.Event()

    def note(self, kept: list[str], name: str) -> None:
        """Add `name` to one of the lists and wake who waits for it."""
        kept.append(name)
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until `happened()`."""
        while not happened():
            await self._changed.wait()


def demo(notes: Notes | None = None) -> MCPServer:
    """A server with `add`, `slow` (with progress), `fails`, `big` and `whoami` (the Authorization it was sent)."""
    noted = notes if notes is not None else Notes()
    server = MCPServer("demo")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True), description="Add two numbers.")
    def add(a: int, b: int) -> str:
        return str(a + b)

    @server.tool()
    async def slow(seconds: float, context: Context, steps: int = 1, name: str = "slow") -> str:
        """Take a while, reporting progress."""
        noted.running += 1
        noted.most_running = max(noted.most_running, noted.running)
        noted.note(noted.started, name)
        try:
            async with asyncio.timeout(10):
                await noted.until(lambda: noted.most_running >= noted.together)
            for step in range(steps):
                await asyncio.sleep(seconds / steps)
                await context.report_progress(step + 1, steps)
            noted.note(noted.finished, name)
        except asyncio.CancelledError:
            noted.note(noted.cancelled, name)
            raise
        finally:
            noted.running -= 1
        return f"{name} done"

    @server.tool(annotations=ToolAnnotations(read_only_hint=False))
    def fails(reason: str = "out of luck") -> str:
        """Always fails."""
        # Only this error's text is told to the caller; any other is the server's own business.
        raise ToolError(reason)

    @server.tool(structured_output=False)
    def big(size: int) -> str:
        """A long text."""
        return "x" * size

    @server.tool(structured_output=False)
    async def whoami(context: Context) -> str:
        """The credentials of this request."""
        request = context.request_context.request
        return request.headers.get("authorization", "nobody") if request is not None else "nobody"

    return server


@asynccontextmanager
async def mcp_server(
    server: MCPServer | None = None, *, legacy: bool = False, json_response: bool = True, port: int = 0
) -> AsyncGenerator[Running, None]:
    """Serve over streamable HTTP on 127.0.0.1. `legacy` knows no version newer than 2025-11-25."""
    app = (server or demo()).streamable_http_app(json_response=json_response)
    running = Running("", 0)
    async with asgi_server(_Watched(app, running.seen, legacy), port) as bound:
        running.port = bound
        running.url = f"http://127.0.0.1:{bound}/mcp"
        yield running


@asynccontextmanager
async def asgi_server(app: Any, port: int = 0) -> AsyncGenerator[int, None]:
    """Serve an ASGI app on 127.0.0.1 in this event loop; yields its port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1, ws="none")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                assert not task.done(), "the server ended before it started"
                await asyncio.sleep(0.005)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class _Watched:
    """Notes down every request; as `legacy`, refuses the modern protocol version as older servers do."""

    def __init__(self, app: Any, seen: list[Seen], legacy: bool) -> None:
        self._app = app
        self._seen = seen
        self._legacy = legacy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self._seen.append(Seen(scope["method"], headers, json.loads(body) if body else {}))
        if self._legacy and headers.get("mcp-protocol-version") == MODERN:
            await _refuse(send)
            return
        replayed = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(replayed, None) or await receive()

        await self._app(scope, again, send)


async def _refuse(send: Any) -> None:
    answer = {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32600, "message": "Bad Request: Unsupported protocol version"},
    }
    await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


# ── raw servers ───────────────────────────────────────────────────────────────

Behaviour = Callable[["Exchange"], Awaitable[None]]

# What each result of the modern version says besides.
MODERN_FIELDS = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


class Exchange(Struct):
    """One HTTP request to a raw server, and the means to answer it, well or badly."""

    rpc: dict[str, Any]
    headers: Mapping[str, str]
    writer: asyncio.StreamWriter

    async def answer(self, result: Any, **fields: Any) -> None:
        """A well-formed JSON-RPC answer, in the version it was asked in."""
        said = {**MODERN_FIELDS, **result} if self.modern else result
        await self.respond(json.dumps({"jsonrpc": "2.0", "id": self.rpc.get("id"), "result": said, **fields}).encode())

    @property
    def modern(self) -> bool:
        """Whether it was asked in the modern version."""
        return self.headers.get("mcp-protocol-version") == MODERN

    async def respond(
        self,
        body: bytes,
        *,
        status: int = 200,
        kind: str = "application/json",
        length: int | None = None,
        extra: str = "",
    ) -> None:
        """An HTTP response; `length` may lie."""
        size = len(body) if length is None else length
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n{extra}\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()


async def polite(exchange: Exchange) -> None:
    """What a small server with one tool, `poke`, answers; in the modern version, where it is asked in that."""
    match exchange.rpc.get("method"):
        case "initialize":
            info = {
                "protocolVersion": LEGACY,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
            await exchange.answer(info)
        case "tools/list":
            await exchange.answer({"tools": [{"name": "poke", "inputSchema": {"type": "object"}}]})
        case "tools/call":
            await exchange.answer({"content": [{"type": "text", "text": "poked"}]})
        case "server/discover" if exchange.modern:
            await exchange.answer({"supportedVersions": [MODERN], "capabilities": {"tools": {}}})
        case _:
            await exchange.respond(b"", status=202 if exchange.rpc else 405)


async def unknown(exchange: Exchange) -> None:
    """What a server says to what it does not know."""
    await exchange.respond(b"no", status=404, kind="text/plain")


@asynccontextmanager
async def raw_server(on: Mapping[str, Behaviour], *, modern: bool = False) -> AsyncGenerator[Running, None]:
    """A server that is `polite` except for the JSON-RPC methods in `on`, and only knows the one version."""
    running = Running("", 0)
    known = dict(on) if modern else {"server/discover": unknown, **on}
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                exchange = await _received(reader, writer, running.seen)
                await known.get(exchange.rpc.get("method", ""), polite)(exchange)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except asyncio.CancelledError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    running.url = f"http://127.0.0.1:{running.port}/mcp"
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _received(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[Seen]) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    rpc = json.loads(body) if body else {}
    seen.append(Seen(request_line.split()[0], headers, rpc))
    return Exchange(rpc, headers, writer)
