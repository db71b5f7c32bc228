"""`/mcp`: a tenant's tools, aggregated, for any MCP client, under the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from msgspec import Struct

from app.boot.listening import Stop
from app.boot.serve import serve
from app.boot.tenants import create_key, create_tenant
from tests.contract.admin.conftest import settings_in
from tests.support.mcp_servers import Notes, demo, mcp_server
from tests.support.ports import free_port
from tests.support.waiting import eventually


class Door(Struct):
    url: str
    admin: str
    data: str
    evil: str

    def headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    @asynccontextmanager
    async def client(self, key: str, mode: str = "auto") -> AsyncIterator[Client]:
        http = httpx2.AsyncClient(headers=self.headers(key), timeout=30, trust_env=False)
        async with http, Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode) as client:
            yield client

    async def register(self, label: str, url: str, **rules: Any) -> None:
        body = {"label": label, "config": {"url": url, "rules": rules}}
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers(self.admin), timeout=30) as client:
            answer = await client.post("/admin/v1/mcp/servers", json=body)
        assert answer.status_code == 201, answer.text

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers(self.admin), timeout=30) as client:
            return await client.request(method, path, **more)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    settings = settings_in(tmp_path)
    await create_tenant(settings, "acme")
    await create_tenant(settings, "evil")
    _, admin = await create_key(settings, "acme", "boss", ("admin",), None)
    _, data = await create_key(settings, "acme", "agent", ("data",), None)
    _, evil = await create_key(settings, "evil", "agent", ("data",), None)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = Stop()
    serving = asyncio.create_task(serve(settings, stop, url.set_result))
    yield Door(await asyncio.wait_for(url, 60), admin, data, evil)
    stop.ask()
    await serving


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_tools_of_all_servers_under_one_roof(door: Door, mode: str) -> None:
    async with mcp_server(demo()) as one, mcp_server(demo(), legacy=True) as two:
        await door.register("one", one.url, allowed_tools=["add", "fails"])
        await door.register("two", two.url, allowed_tools=["add", "big"])
        await door.register("gone", f"http://127.0.0.1:{free_port()}/mcp")
        async with door.client(door.data, mode) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["one__add", "fails", "two__add", "big"]
            assert tools[0].annotations is not None
            assert tools[0].annotations.read_only_hint is True
            assert (await client.call_tool("two__add", {"a": 1, "b": 2})).content[0].text == "3"
            failed = await client.call_tool("fails", {"reason": "no luck"})
            assert failed.is_error
            assert "no luck" in failed.content[0].text
            with pytest.raises(MCPError, match="no tool"):
                await client.call_tool("nothing", {})
        log = (await door.ask("GET", "/admin/v1/audit/", params={"action": "mcp.tool.call"})).json()["data"]
        assert [(each["server"], each["tool"], each["outcome"]) for each in log] == [
            ("one", "fails", "mcp_tool_execution_error"),
            ("two", "add", "ok"),
        ]


async def test_rules_hold_also_for_what_was_listed_before(door: Door) -> None:
    async with mcp_server(demo()) as server:
        await door.register("demo", server.url, tools={"big": {"decision": "deny"}, "slow": {"decision": "ask"}})
        async with door.client(door.data) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"add", "slow", "fails", "whoami"}
            assert (await client.call_tool("add", {"a": 1, "b": 2})).is_error is False
            assert (await door.ask("POST", "/admin/v1/mcp/servers/demo/disable")).status_code == 200
            refused = await client.call_tool("add", {"a": 1, "b": 2})
            assert refused.is_error
            assert "disabled" in refused.content[0].text


async def test_the_clients_key_is_for_us_and_goes_no_further(door: Door) -> None:
    async with mcp_server(demo()) as server:
        await door.register("demo", server.url)
        async with door.client(door.data) as client:
            assert (await client.call_tool("whoami", {})).content[0].text == "nobody"
        assert not any(door.data in str(seen.headers) for seen in server.seen)


async def test_another_tenant_sees_other_tools_and_nobody_none(door: Door) -> None:
    async with mcp_server(demo()) as server:
        await door.register("demo", server.url)
        async with door.client(door.evil) as client:
            assert (await client.list_tools()).tools == []
            with pytest.raises(MCPError):
                await client.call_tool("add", {"a": 1, "b": 2})
    async with httpx.AsyncClient(base_url=door.url) as nobody:
        assert (await nobody.post("/mcp", json={})).status_code == 401
        assert (await nobody.get("/mcp")).status_code == 401


async def test_progress_and_cancelling_go_through(door: Door) -> None:
    notes = Notes()
    reports: list[float] = []

    async def on_progress(done: float, _total: float | None, _message: str | None) -> None:
        reports.append(done)

    async with mcp_server(demo(notes), json_response=False) as server:
        await door.register("demo", server.url)
        async with door.client(door.data) as client:
            done = await client.call_tool("slow", {"seconds": 0.2, "steps": 3}, progress_callback=on_progress)
            assert done.is_error is False
            # Reports are told by tasks of their own, the last of which may come after the result.
            await eventually(lambda: len(reports) == 3)
            assert reports == [1, 2, 3]
            doomed = asyncio.create_task(client.call_tool("slow", {"seconds": 30, "name": "doomed"}))
            await eventually(lambda: "doomed" in notes.started)
            doomed.cancel()
            await asyncio.gather(doomed, return_exceptions=True)
            await eventually(lambda: "doomed" in notes.cancelled)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"host": "evil.example"}, 421), ({"origin": "https://evil.example"}, 403), ({"content-type": "text/plain"}, 400)],
)
async def test_who_comes_by_another_name_is_refused(door: Door, headers: dict[str, str], status: int) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    given = {
        **door.headers(door.data),
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        **headers,
    }
    async with httpx.AsyncClient(base_url=door.url, headers=given) as client:
        answer = await client.post("/mcp", content=httpx.Request("POST", "http://x", json=body).content)
    assert answer.status_code == status


async def test_headers_have_to_say_what_the_body_says(door: Door) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "add", "arguments": {}, "_meta": meta},
    }
    said = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "other"}
    given = {**door.headers(door.data), "accept": "application/json, text/event-stream", **said}
    async with httpx.AsyncClient(base_url=door.url, headers=given) as client:
        answer = await client.post("/mcp", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32020


CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.mark.parametrize(
    "given",
    [
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJhdWQiOiJodHRwczovL290aGVyLmV4YW1wbGUifQ."},
        {"authorization": "Basic YTpi"},
        {},
    ],
)
async def test_a_token_that_was_not_issued_here_opens_nothing(door: Door, given: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=door.url, headers={**ACCEPT, **given}) as client:
        refused = await client.post("/mcp", json=CALL, params={"access_token": door.data, "api_key": door.data})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_a_session_id_of_somebody_elses_is_worth_nothing(door: Door) -> None:
    """There are no sessions here: whoever sends an id is who their key says, and is given none."""
    async with mcp_server(demo()) as server:
        await door.register("demo", server.url)
        for key, found in ((door.data, True), (door.evil, False)):
            given = {**door.headers(key), **ACCEPT, "mcp-session-id": "5b8f1d0c5b8f1d0c5b8f1d0c5b8f1d0c"}
            async with httpx.AsyncClient(base_url=door.url, headers=given) as client:
                answer = await client.post("/mcp", json=CALL)
            assert "mcp-session-id" not in answer.headers
            assert ("There is no tool" not in answer.text) is found
        assert not any("5b8f1d0c" in str(seen.headers) for seen in server.seen)


async def test_a_body_that_is_too_large_and_a_key_for_something_else_are_refused(door: Door) -> None:
    async with httpx.AsyncClient(
        base_url=door.url, headers={**door.headers(door.data), **ACCEPT}, timeout=30
    ) as client:
        large = await client.post("/mcp", json={**CALL, "pad": "x" * 9_000_000})
        assert large.status_code == 413
        assert (await client.post("/mcp", json=CALL)).status_code == 200
    async with httpx.AsyncClient(base_url=door.url, headers={**door.headers(door.admin), **ACCEPT}) as client:
        assert (await client.post("/mcp", json=CALL)).status_code == 403
