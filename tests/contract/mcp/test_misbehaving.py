"""A server that breaks its promises hurts the one call that met it: its siblings and the next call end well."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings
from app.responses.ports import McpServer, ToolSession
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK
from tests.support.mcp_servers import LEGACY, Behaviour, Exchange, Running, free_port, polite, raw_server

MIB = 1_048_576
TEXT = {"content": [{"type": "text", "text": "poked"}]}


def poke(call_id: str = "c1", **arguments: object) -> CallTool:
    return CallTool(call_id, "raw", "poke", json.dumps(arguments))


@asynccontextmanager
async def using(
    on: Mapping[str, Behaviour], **settings: Any
) -> AsyncIterator[tuple[ToolSession, Running, McpExecutor]]:
    executor = McpExecutor(McpSettings(allow_loopback=True, **settings))
    async with raw_server(on) as server:
        try:
            async with executor.open(
                "t", [McpServer(label="raw", url=server.url, require_approval=NEVER_ASK)], None
            ) as tools:
                yield tools, server, executor
        finally:
            await executor.close()


def only_bad(misbehave: Behaviour) -> dict[str, Behaviour]:
    """Calls with `bad` misbehave, calls with `slow` take a moment, others are answered."""

    async def call(exchange: Exchange) -> None:
        arguments = exchange.rpc["params"].get("arguments") or {}
        if arguments.get("bad"):
            await misbehave(exchange)
            return
        if arguments.get("slow"):
            await asyncio.sleep(0.3)
        await exchange.answer(TEXT)

    return {"tools/call": call}


async def hangs_up(exchange: Exchange) -> None:
    exchange.writer.close()


async def hangs_up_in_the_body(exchange: Exchange) -> None:
    await exchange.respond(b'{"jsonrpc":"2.0","id":', length=5000)
    exchange.writer.close()


async def hangs_up_in_an_event(exchange: Exchange) -> None:
    await exchange.respond(b"event: message\ndata: {", kind="text/event-stream", length=5000)
    exchange.writer.close()


async def ends_the_events(exchange: Exchange) -> None:
    await exchange.respond(b": nothing to say\n\n", kind="text/event-stream")


async def sends_html(exchange: Exchange) -> None:
    await exchange.respond(b"<h1>Login</h1>", kind="text/html")


async def sends_no_json(exchange: Exchange) -> None:
    await exchange.respond(b"{nope")


async def sends_a_bare_value(exchange: Exchange) -> None:
    await exchange.respond(b"[1,2,3]")


async def answers_another(exchange: Exchange) -> None:
    await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": 987654, "result": TEXT}).encode())


async def answers_nonsense(exchange: Exchange) -> None:
    await exchange.answer({"content": [{"type": "text"}]})


async def compresses(exchange: Exchange) -> None:
    await exchange.respond(b"\x1f\x8b\x08", extra="content-encoding: gzip\r\n")


async def fails_inside(exchange: Exchange) -> None:
    await exchange.respond(b"Traceback: db-7.internal refused", status=500, kind="text/plain")


async def redirects(exchange: Exchange) -> None:
    await exchange.respond(b"", status=307, extra="location: http://127.0.0.1:1/mcp\r\n")


MISDEEDS = [
    hangs_up,
    hangs_up_in_the_body,
    hangs_up_in_an_event,
    ends_the_events,
    sends_html,
    sends_no_json,
    sends_a_bare_value,
    answers_another,
    answers_nonsense,
    compresses,
    fails_inside,
    redirects,
]


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda each: each.__name__)
async def test_a_misdeed_fails_one_call_and_no_other(misdeed: Behaviour) -> None:
    async with using(only_bad(misdeed), call_timeout_secs=5, call_max_secs=5) as (tools, server, executor):
        await tools.list_tools("raw")
        began = time.monotonic()
        bad, sibling = await asyncio.gather(tools.call(poke(bad=True)), tools.call(poke("c2", slow=True)))
        after = await tools.call(poke("c3"))
        assert bad.error is not None
        assert bad.error.kind in {"http_error", "mcp_protocol_error"}
        assert "internal" not in bad.error.message
        assert (sibling.output, sibling.error) == ("poked", None)
        assert (after.output, after.error) == ("poked", None)
        assert server.count("initialize") == 1
        assert executor.sessions == 1
        assert time.monotonic() - began < 4


async def test_twenty_mebibytes_are_not_read() -> None:
    sent = 0
    cut_off = asyncio.Event()

    async def pours(exchange: Exchange) -> None:
        nonlocal sent
        head = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' % exchange.rpc["id"]
        await exchange.respond(head, length=20 * MIB)
        try:
            while sent < 20 * MIB:
                exchange.writer.write(b"x" * 65536)
                await exchange.writer.drain()
                sent += 65536
        except ConnectionError:
            cut_off.set()
            raise

    async with using(only_bad(pours)) as (tools, _server, _executor):
        bad, sibling = await asyncio.gather(tools.call(poke(bad=True)), tools.call(poke("c2", slow=True)))
        await asyncio.wait_for(cut_off.wait(), 5)
    assert bad.error is not None
    assert f"{8 * MIB} bytes" in bad.error.message
    assert sibling.error is None
    # What the kernel holds between the two is sent, too; cutting it off is what counts.
    assert sent < 20 * MIB


async def test_a_huge_event_is_not_read() -> None:
    async def pours(exchange: Exchange) -> None:
        await exchange.respond(b"event: message\ndata: ", kind="text/event-stream", length=20 * MIB)
        for _ in range(320):
            exchange.writer.write(b"x" * 65536)
            await exchange.writer.drain()

    async with using(only_bad(pours), max_body_bytes=MIB) as (tools, _server, _executor):
        bad = await tools.call(poke(bad=True))
        assert bad.error is not None
        assert (await tools.call(poke("c2"))).error is None


async def test_a_byte_now_and_then_does_not_hold_a_call_for_ever() -> None:
    async def drips(exchange: Exchange) -> None:
        await exchange.respond(b"{", length=10_000)
        while True:
            exchange.writer.write(b" ")
            await exchange.writer.drain()
            await asyncio.sleep(0.05)

    async with using(only_bad(drips), call_timeout_secs=0.5, call_max_secs=1) as (tools, _server, _executor):
        async with asyncio.timeout(5):
            bad = await tools.call(poke(bad=True))
        assert bad.error is not None
        assert bad.error.code == -32001
        assert (await tools.call(poke("c2"))).error is None


async def test_silence_is_a_timeout() -> None:
    async def sits(_exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with using(only_bad(sits), call_timeout_secs=0.3) as (tools, _server, _executor):
        bad, sibling = await asyncio.gather(tools.call(poke(bad=True)), tools.call(poke("c2")))
    assert bad.error is not None
    assert bad.error.code == -32001
    assert sibling.error is None


async def test_a_session_that_never_opens_is_given_up() -> None:
    async def sits(_exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with using({"server/discover": sits, "initialize": sits}, open_timeout_secs=0.3) as (tools, _, executor):
        listed = await tools.list_tools("raw")
        assert listed.error is not None
        assert "did not open a session" in listed.error.message
        assert executor.sessions == 0


async def test_nobody_there_is_said_so() -> None:
    executor = McpExecutor(McpSettings(allow_loopback=True))
    gone = McpServer(label="raw", url=f"http://127.0.0.1:{free_port()}/mcp", require_approval=NEVER_ASK)
    async with executor.open("t", [gone], None) as tools:
        listed = await tools.list_tools("raw")
    await executor.close()
    assert listed.error is not None
    assert listed.error.kind == "http_error"
    assert "cannot be reached" in listed.error.message


# ── listings ──────────────────────────────────────────────────────────────────


def tool(name: str, schema: object = None) -> dict[str, Any]:
    return {"name": name, "inputSchema": schema or {"type": "object"}}


async def test_endless_pages_end() -> None:
    pages = 0

    async def more(exchange: Exchange) -> None:
        nonlocal pages
        pages += 1
        await exchange.answer({"tools": [tool(f"t{pages}")], "nextCursor": f"page{pages}"})

    async with using({"tools/list": more}, max_pages=7) as (tools, _server, _executor):
        listed = await tools.list_tools("raw")
    assert listed.error is not None
    assert "more than 7 pages" in listed.error.message
    assert pages == 7


async def test_a_cursor_that_comes_back_is_noticed() -> None:
    pages = 0

    async def again(exchange: Exchange) -> None:
        nonlocal pages
        pages += 1
        await exchange.answer({"tools": [tool("t")], "nextCursor": "same"})

    async with using({"tools/list": again}) as (tools, _server, _executor):
        listed = await tools.list_tools("raw")
    assert listed.error is not None
    assert "repeats itself" in listed.error.message
    assert pages == 2


async def test_ten_thousand_tools_are_too_many() -> None:
    async def many(exchange: Exchange) -> None:
        await exchange.answer({"tools": [tool(f"t{n}") for n in range(10_000)]})

    async with using({"tools/list": many}) as (tools, _server, _executor):
        listed = await tools.list_tools("raw")
    assert listed.error is not None
    assert "more than 1000 tools" in listed.error.message


async def test_a_listing_that_is_no_listing_is_an_error_of_the_server() -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.answer({"tools": [{"name": 7}]})

    async with using({"tools/list": odd}) as (tools, _server, executor):
        listed = await tools.list_tools("raw")
        assert listed.error is not None
        assert "not valid MCP" in listed.error.message
        assert executor.sessions == 1


# ── lost sessions ─────────────────────────────────────────────────────────────


async def opens(exchange: Exchange) -> None:
    about = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": about}).encode()
    await exchange.respond(body, extra=f"mcp-session-id: session-{exchange.rpc['id']}\r\n")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"Session not found"), (404, b"{}"), (400, b'{"error":"Bad Request: No valid session ID provided"}')],
)
async def test_a_forgotten_session_is_opened_again_once(status: int, body: bytes) -> None:
    calls = 0

    async def forgets(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            await exchange.respond(body, status=status)
        else:
            await exchange.answer(TEXT)

    async with using({"initialize": opens, "tools/call": forgets}) as (tools, server, _executor):
        assert (await tools.call(poke("c1"))).error is None
        assert (await tools.call(poke("c2"))).output == "poked"
        assert server.count("initialize") == 2
        assert calls == 3


async def test_a_session_forgotten_twice_is_an_error() -> None:
    async def forgets(exchange: Exchange) -> None:
        await exchange.respond(b"Session not found", status=404)

    async with using({"initialize": opens, "tools/call": forgets}) as (tools, server, _executor):
        result = await tools.call(poke())
        assert result.error is not None
        assert result.error.kind == "http_error"
        assert server.count("initialize") == 2


async def test_a_400_that_answers_the_call_loses_nothing() -> None:
    async def refuses(exchange: Exchange) -> None:
        error = {"code": -32602, "message": "poke harder"}
        await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode(), status=400)

    async with using({"initialize": opens, **only_bad(refuses)}) as (tools, server, _executor):
        result = await tools.call(poke(bad=True))
        assert result.error is not None
        assert "poke harder" in result.error.message
        assert (await tools.call(poke("c2"))).error is None
        assert server.count("initialize") == 1


async def test_what_a_server_says_is_cut_to_one_short_line() -> None:
    async def talks(exchange: Exchange) -> None:
        error = {"code": -32000, "message": "line\n" * 5000}
        await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "error": error}).encode())

    async with using(only_bad(talks)) as (tools, _server, _executor):
        result = await tools.call(poke(bad=True))
    assert result.error is not None
    assert "\n" not in result.error.message
    assert len(result.error.message) < 600


async def test_notifications_that_hang_hold_up_no_call() -> None:
    async def sits(_exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with using({"notifications/initialized": sits}, connect_timeout_secs=0.3) as (tools, _server, _executor):
        async with asyncio.timeout(5):
            assert (await tools.call(poke())).output == "poked"


async def test_polite_is_polite() -> None:
    async with using({"tools/call": polite}) as (tools, _server, _executor):
        assert [each.name for each in (await tools.list_tools("raw")).tools] == ["poke"]
        assert (await tools.call(poke())).output == "poked"


async def test_what_a_refusal_carries_reaches_whoever_can_use_it() -> None:
    """A server of 2026-07-28 says which versions it speaks when it is asked in another one, with a 400."""
    asked: list[str] = []

    async def picky(exchange: Exchange) -> None:
        version = exchange.headers.get("mcp-protocol-version", "")
        asked.append(f"{exchange.rpc['method']} {version}")
        error = {"code": -32022, "message": "no", "data": {"supported": ["2025-11-25"], "requested": version}}
        await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), status=400)

    async with using({"server/discover": picky}) as (tools, server, _executor):
        assert (await tools.list_tools("raw")).error is None
    assert asked == ["server/discover 2026-07-28"]
    assert server.count("initialize") == 1
