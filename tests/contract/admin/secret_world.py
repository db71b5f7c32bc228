"""A gateway with keys, a simulated worker, and a raw MCP server with a secret in everything it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.contract.admin.conftest import Gateway
from tests.support.mcp_servers import LEGACY, Exchange, Running, raw_server

SERVERS = "/admin/v1/mcp/servers"
# Whatever may not be told carries this word.
SENTINEL = "sentinel"


async def _opens(exchange: Exchange) -> None:
    info = {"name": "raw", "version": "1"}
    result = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": info}
    body = json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": result}).encode()
    await exchange.respond(body, extra=f"mcp-session-id: {SENTINEL}-session\r\nset-cookie: c={SENTINEL}-cookie\r\n")


async def _calls(exchange: Exchange) -> None:
    arguments = exchange.rpc["params"]["arguments"]
    match arguments.get("how"):
        case "status":
            await exchange.respond(f"Traceback: db-7.{SENTINEL}.internal".encode(), status=500, kind="text/plain")
        case "nonsense":
            await exchange.answer({"content": f"{SENTINEL}-nonsense"})
        case "hang up":
            exchange.writer.close()
        case _:
            await exchange.answer({"content": [{"type": "text", "text": f"{SENTINEL}-result"}]})


@asynccontextmanager
async def secretive(*, modern: bool) -> AsyncIterator[Running]:
    """The server."""
    async with raw_server({"initialize": _opens, "tools/call": _calls}, modern=modern) as server:
        yield server


async def prepare(gateway: Gateway, url: str) -> None:
    """The server is the tenant's, with a secret credential."""
    body = {"label": "raw", "config": {"url": url, "auth": "shared"}}
    answer = await gateway["acme.admin"].post(SERVERS, json=body)
    assert answer.status_code == 201, answer.text
    secret = {"kind": "bearer", "token": f"{SENTINEL}-credential"}
    assert (await gateway["acme.admin"].put(f"{SERVERS}/raw/credentials/shared", json=secret)).status_code == 204


async def respond(gateway: Gateway, **arguments: Any) -> dict[str, Any]:
    """A response that calls the server's tool once; its `mcp_call` item."""
    tool = {"type": "mcp", "server_label": "raw", "require_approval": "never"}
    asked = {"model": "simulated", "input": f"poke {json.dumps(arguments)}", "tools": [tool]}
    headers = {"baggage": f"user={SENTINEL}-baggage"}
    answer = await gateway["acme.data"].post("/v1/responses", json=asked, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    (made,) = [item for item in answer.json()["output"] if item["type"] == "mcp_call"]
    return made
