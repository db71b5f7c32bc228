"""What a server may do besides answering: send its client on, break off, ask back, remember it by a cookie."""

import asyncio
import json
from typing import Any

import pytest

from app.mcp import exchanges
from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings
from app.responses.ports import McpServer
from app.turn.events import CallTool
from app.turn.items import ToolResult
from app.turn.request import NEVER_ASK
from tests.support.mcp_servers import LEGACY, Behaviour, Exchange, Running, polite, raw_server

TEXT = {"content": [{"type": "text", "text": "poked"}]}


async def poked(on: dict[str, Behaviour]) -> tuple[ToolResult, Running]:
    """What two calls over one session came to: the second one's result, and what the server saw."""
    executor = McpExecutor(McpSettings(allow_loopback=True, call_timeout_secs=30))
    async with raw_server(on) as server:
        named = McpServer(label="raw", url=server.url, require_approval=NEVER_ASK)
        async with executor.open("t", [named], None) as tools:
            await tools.call(CallTool("c1", "raw", "poke", "{}"))
            result = await tools.call(CallTool("c2", "raw", "poke", "{}"))
        await executor.close()
        return result, server


def event(message: object, number: int | None = None) -> bytes:
    numbered = f"id: {number}\n" if number is not None else ""
    return f"{numbered}event: message\ndata: {json.dumps(message)}\n\n".encode()


async def opens(exchange: Exchange) -> None:
    about: dict[str, Any] = {
        "protocolVersion": LEGACY,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "raw", "version": "1"},
    }
    body = json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": about}).encode()
    await exchange.respond(body, extra="mcp-session-id: s1\r\nset-cookie: node=7; Path=/\r\n")


async def test_a_server_that_moves_within_itself_is_followed() -> None:
    moved: list[int] = []

    async def moves(exchange: Exchange) -> None:
        if exchange.rpc["id"] in moved:
            await exchange.answer(TEXT)
            return
        moved.append(exchange.rpc["id"])
        await exchange.respond(b"", status=308, extra="location: /mcp/\r\n")

    result, server = await poked({"tools/call": moves})
    assert (result.output, result.error) == ("poked", None)
    assert server.count("tools/call") == 4


async def test_a_server_that_moves_in_circles_is_given_up() -> None:
    async def moves(exchange: Exchange) -> None:
        await exchange.respond(b"", status=307, extra="location: /mcp\r\n")

    result, _ = await poked({"tools/call": moves})
    assert result.error is not None
    assert result.error.kind == "mcp_protocol_error"


async def test_an_answer_that_breaks_off_is_resumed_where_events_are_numbered() -> None:
    asked: list[int] = []

    async def breaks_off(exchange: Exchange) -> None:
        asked.append(exchange.rpc["id"])
        await exchange.respond(b"id: 41\nretry: 10\ndata: \n\n", kind="text/event-stream")

    async def resumes(exchange: Exchange) -> None:
        if exchange.headers.get("last-event-id") != "41":
            await exchange.respond(b"", status=405 if not exchange.rpc else 202)
            return
        answer = {"jsonrpc": "2.0", "id": asked[-1], "result": TEXT}
        await exchange.respond(event(answer, 42), kind="text/event-stream")

    result, _ = await poked({"initialize": opens, "tools/call": breaks_off, "": resumes})
    assert (result.output, result.error) == ("poked", None)


async def test_what_a_server_asks_and_tells_before_it_answers_is_taken_in() -> None:
    replies: dict[str, dict[str, Any]] = {}
    both = asyncio.Event()

    async def hears(exchange: Exchange) -> None:
        if "id" in exchange.rpc:
            replies[exchange.rpc["id"]] = exchange.rpc
        if len(replies) == 2:
            both.set()
        await polite(exchange)

    async def chats(exchange: Exchange) -> None:
        if exchange.rpc["id"] > 3:
            await both.wait()
        said = [
            {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
            {"jsonrpc": "2.0", "method": "notifications/of/nobody", "params": {"a": 1}},
            {"jsonrpc": "2.0", "id": "p1", "method": "ping"},
            {"jsonrpc": "2.0", "id": "p2", "method": "of/nobody"},
            {"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": TEXT},
        ]
        await exchange.respond(b"".join(map(event, said)), kind="text/event-stream")

    result, _ = await poked({"tools/call": chats, "": hears})
    assert (result.output, result.error) == ("poked", None)
    assert replies["p1"]["result"] == {}
    assert replies["p2"]["error"]["code"] == -32601


async def test_a_server_finds_its_client_by_session_version_and_cookie() -> None:
    seen: list[tuple[str | None, ...]] = []

    async def looks(exchange: Exchange) -> None:
        names = ("mcp-session-id", "mcp-protocol-version", "cookie")
        seen.append(tuple(exchange.headers.get(name) for name in names))
        await polite(exchange)

    result, server = await poked({"initialize": opens, "tools/call": looks})
    assert result.error is None
    assert seen == [("s1", LEGACY, "node=7")] * 2
    assert [each.method for each in server.seen if each.method != "POST"][-1] == "DELETE"


async def test_the_first_call_waits_until_the_servers_own_stream_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # It does not wait for long, and machines that run tests are busy.
    monkeypatch.setattr(exchanges, "_LISTEN_SECS", 20)
    there: list[bool] = []
    calls: list[bool] = []

    async def listens(exchange: Exchange) -> None:
        if exchange.headers["accept"] == "text/event-stream":
            await asyncio.sleep(0.05)
            there.append(True)
            await exchange.respond(b": there\n\n", kind="text/event-stream")
        else:
            await polite(exchange)

    async def called(exchange: Exchange) -> None:
        calls.append(bool(there))
        await exchange.answer(TEXT)

    result, _ = await poked({"initialize": opens, "tools/call": called, "": listens})
    assert result.error is None
    assert calls == [True, True]


async def test_a_server_that_says_nothing_on_its_own_stream_holds_up_no_call() -> None:
    over = asyncio.Event()

    async def is_silent(exchange: Exchange) -> None:
        if exchange.headers["accept"] == "text/event-stream":
            await over.wait()
        else:
            await polite(exchange)

    async def called(exchange: Exchange) -> None:
        await exchange.answer(TEXT)

    result, _ = await poked({"initialize": opens, "tools/call": called, "": is_silent})
    over.set()
    assert (result.output, result.error) == ("poked", None)
