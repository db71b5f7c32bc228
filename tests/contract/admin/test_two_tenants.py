"""Two tenants and one server: whatever is interleaved, each is answered with its own, and sent as itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer

from tests.contract.admin.conftest import Gateway
from tests.support.mcp_servers import Running, mcp_server

CALLS = 1000
AT_ONCE = 24
# Who asks, by the names of the gateway's clients, with the token of each.
TOKENS = {f"{tenant}.{name}": f"token-of-{tenant}-{name}" for tenant in ("acme", "evil") for name in ("data", "both")}
ACCEPT = {"accept": "application/json, text/event-stream"}


def echoing() -> MCPServer:
    """A server whose tool says what it was sent, after a moment in which others are served."""
    server = MCPServer("echoing")
    chance = random.Random(7)

    @server.tool(structured_output=False)
    async def echo(word: str, context: Context) -> str:
        request = context.request_context.request
        assert request is not None
        before = (request.headers.get("authorization"), request.headers.get("mcp-session-id"))
        await asyncio.sleep(chance.random() / 200)
        after = (request.headers.get("authorization"), request.headers.get("mcp-session-id"))
        assert before == after
        return json.dumps({"word": word, "token": after[0], "session": after[1]})

    return server


@pytest.fixture(params=["2025-11-25", "2026-07-28"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def server(era: str) -> AsyncIterator[Running]:
    async with mcp_server(echoing(), legacy=era == "2025-11-25") as running:
        yield running


async def prepare(gateway: Gateway, url: str) -> None:
    """One URL, registered by both tenants under one label; each principal puts a token of its own there."""
    for tenant in ("acme", "evil"):
        body = {"label": "echoing", "config": {"url": url, "auth": "per_user"}}
        assert (await gateway[f"{tenant}.admin"].post("/admin/v1/mcp/servers", json=body)).status_code == 201
    for who, token in TOKENS.items():
        secret = {"kind": "bearer", "token": token}
        assert (await gateway[who].put("/v1/mcp/credentials/echoing", json=secret)).status_code == 204


async def echo(gateway: Gateway, who: str, word: str) -> dict[str, Any]:
    params = {"name": "echo", "arguments": {"word": word}}
    body = {"jsonrpc": "2.0", "id": word, "method": "tools/call", "params": params}
    answer = await gateway[who].post("/mcp", json=body, headers={**ACCEPT, "host": "127.0.0.1:1"})
    assert answer.status_code == 200, answer.text
    said = answer.json() if answer.headers["content-type"] == "application/json" else _event(answer.text)
    assert said["id"] == word
    return json.loads(said["result"]["content"][0]["text"])


def _event(text: str) -> dict[str, Any]:
    return json.loads(next(line for line in text.splitlines() if line.startswith("data:"))[5:])


@pytest.mark.slow
async def test_a_thousand_interleaved_calls_cross_nothing(gateway: Gateway, server: Running, era: str) -> None:
    await prepare(gateway, server.url)
    gate = asyncio.Semaphore(AT_ONCE)
    turns = [list(TOKENS)[number % len(TOKENS)] for number in range(CALLS)]
    random.Random(11).shuffle(turns)

    async def one(number: int, who: str) -> tuple[str, str | None]:
        async with gate:
            said = await echo(gateway, who, f"{who} {number}")
        assert said["word"] == f"{who} {number}"
        assert said["token"] == f"Bearer {TOKENS[who]}"
        return who, said["session"]

    found = await asyncio.gather(*(one(number, who) for number, who in enumerate(turns)))
    sessions = {who: {session for each, session in found if each == who} for who in TOKENS}
    if era == "2026-07-28":
        assert set().union(*sessions.values()) == {None}
    else:
        assert all(len(own) == 1 and None not in own for own in sessions.values())
        assert len(set().union(*sessions.values())) == len(TOKENS)
    # On the wire, too: no session was ever used with another token than the one that opened it.
    used = {(seen.headers.get("mcp-session-id"), seen.headers.get("authorization")) for seen in server.seen}
    of_session: dict[str, set[str | None]] = {}
    for session, token in used:
        if session is not None:
            of_session.setdefault(session, set()).add(token)
    assert all(len(tokens) == 1 for tokens in of_session.values())
    assert {token for _, token in used} == {f"Bearer {token}" for token in TOKENS.values()}
