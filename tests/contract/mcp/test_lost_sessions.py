"""What only servers that keep sessions can do: forget them, refuse versions, hang on what needs no answer."""

import asyncio
import json

import pytest

from app.responses.ports import Continuation, McpServer
from app.turn.request import NEVER_ASK
from tests.contract.mcp.conftest import beside_another, poke
from tests.contract.mcp.test_misbehaving import TEXT, only_bad
from tests.support.clocks import put_forward
from tests.support.mcp_servers import LEGACY, Exchange
from tests.support.waiting import eventually


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

    async with beside_another({"initialize": opens, "tools/call": forgets}, modern=False) as (tools, server, _executor):
        assert (await tools.call(poke("c1"))).error is None
        assert (await tools.call(poke("c2"))).output == "poked"
        assert server.count("initialize") == 2
        assert calls == 3


async def test_a_session_forgotten_twice_is_an_error() -> None:
    async def forgets(exchange: Exchange) -> None:
        await exchange.respond(b"Session not found", status=404)

    async with beside_another({"initialize": opens, "tools/call": forgets}, modern=False) as (tools, server, _executor):
        result = await tools.call(poke())
        assert result.error is not None
        assert result.error.kind == "http_error"
        assert server.count("initialize") == 2


async def test_a_400_that_answers_the_call_loses_nothing() -> None:
    async def refuses(exchange: Exchange) -> None:
        error = {"code": -32602, "message": "poke harder"}
        await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode(), status=400)

    async with beside_another({"initialize": opens, **only_bad(refuses)}, modern=False) as (tools, server, _executor):
        result = await tools.call(poke(bad=True))
        assert result.error is not None
        assert "poke harder" in result.error.message
        assert (await tools.call(poke("c2"))).error is None
        assert server.count("initialize") == 1


async def test_notifications_that_hang_hold_up_no_call() -> None:
    async def sits(_exchange: Exchange) -> None:
        await asyncio.Event().wait()

    on = {"notifications/initialized": sits}
    async with beside_another(on, modern=False, connect_timeout_secs=5) as (tools, server, _executor):
        calling = asyncio.create_task(tools.call(poke()))
        await eventually(lambda: server.count("notifications/initialized") > 0)
        put_forward(5)
        assert (await calling).output == "poked"


async def test_what_a_refusal_carries_reaches_whoever_can_use_it() -> None:
    """A server of 2026-07-28 says which versions it speaks when it is asked in another one, with a 400."""
    asked: list[str] = []

    async def picky(exchange: Exchange) -> None:
        version = exchange.headers.get("mcp-protocol-version", "")
        asked.append(f"{exchange.rpc['method']} {version}")
        error = {"code": -32022, "message": "no", "data": {"supported": ["2025-11-25"], "requested": version}}
        await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), status=400)

    async with beside_another({"server/discover": picky}, modern=False) as (tools, server, _executor):
        assert (await tools.list_tools("raw")).error is None
    assert asked == ["server/discover 2026-07-28"]
    assert server.count("initialize") == 1


async def test_a_server_that_gives_nothing_to_be_known_by_has_one_session_for_all() -> None:
    for on, sessions in (({}, 1), ({"initialize": opens}, 3)):
        async with beside_another(on, modern=False) as (_tools, server, executor):
            raw = [McpServer(label="raw", url=server.url, require_approval=NEVER_ASK)]
            for number in range(3):
                async with executor.open("t", raw, Continuation(response=f"r{number}")) as tools:
                    assert (await tools.call(poke())).error is None
            assert executor.sessions == sessions
