"""A call over `/mcp` that takes a person's word: refused, given, made once, and never again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.admin.conftest import Gateway
from tests.support.mcp_servers import Exchange, Running, demo, mcp_server, polite, raw_server

ADMIN = "/admin/v1"
HEADERS = {"accept": "application/json, text/event-stream", "host": "127.0.0.1:1"}


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with mcp_server(demo()) as running:
        yield running


async def register(gateway: Gateway, url: str, **rules: Any) -> None:
    config = {"url": url, "rules": {"tools": {"add": {"decision": "ask"}}, **rules}}
    answer = await gateway["acme.admin"].post(f"{ADMIN}/mcp/servers", json={"label": "demo", "config": config})
    assert answer.status_code == 201, answer.text


async def rpc(gateway: Gateway, who: str, method: str, **params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await gateway[who].post("/mcp", json=body, headers=HEADERS)
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    data = next((line[5:] for line in lines if line.startswith("data:")), answer.text)
    return json.loads(data)["result"]


async def call(gateway: Gateway, who: str = "acme.data", tool: str = "add", **arguments: Any) -> dict[str, Any]:
    return await rpc(gateway, who, "tools/call", name=tool, arguments=arguments)


def waits(result: dict[str, Any], state: str = "pending") -> str:
    """The id of the approval that a refused call waits for."""
    assert result["isError"] is True
    about = result["_meta"]["shepherd/approval"]
    assert about["state"] == state
    assert about["id"] in result["content"][0]["text"]
    return about["id"]


def done(result: dict[str, Any]) -> str:
    assert result.get("isError", False) is False, result
    return result["content"][0]["text"]


async def decide(gateway: Gateway, approval: str, word: str, who: str = "acme.boss") -> int:
    return (await gateway[who].post(f"{ADMIN}/approvals/{approval}/{word}")).status_code


async def test_a_call_goes_through_once_when_another_person_agreed(gateway: Gateway, server: Running) -> None:
    await register(gateway, server.url)
    tools = {tool["name"]: tool for tool in (await rpc(gateway, "acme.data", "tools/list"))["tools"]}
    assert tools["add"]["_meta"] == {"shepherd/approval": {"state": "needed"}}
    assert tools["big"].get("_meta") is None
    approval = waits(await call(gateway, a=1, b=2))
    # The same call, however it is written, waits as the same.
    assert waits(await call(gateway, b=2, a=1)) == approval
    assert server.count("tools/call") == 0
    (shown,) = (await gateway["acme.boss"].get(f"{ADMIN}/approvals/")).json()["data"]
    assert (shown["id"], shown["tool"], shown["arguments"], shown["response_id"]) == (
        approval, "add", '{"a":1,"b":2}', "",
    )  # fmt: skip
    assert await decide(gateway, approval, "approve") == 200
    # Neither other arguments nor another user have it.
    other = waits(await call(gateway, a=1, b=3))
    assert other != approval
    assert waits(await call(gateway, "acme.both", a=1, b=2)) not in {approval, other}
    assert done(await call(gateway, a=1, b=2)) == "3"
    assert waits(await call(gateway, a=1, b=2)) not in {approval, other}
    assert server.count("tools/call") == 1
    log = (await gateway["acme.admin"].get(f"{ADMIN}/audit/", params={"action": "mcp.tool.call"})).json()["data"]
    assert {(each["decision"], each["outcome"]) for each in log} == {("ask", "ok"), ("ask", "mcp_protocol_error")}
    assert [each["detail"] for each in log if each["outcome"] == "ok"] == [approval]


async def test_nobody_agrees_to_their_own_call_and_nobody_elses_tenant_does(gateway: Gateway, server: Running) -> None:
    await register(gateway, server.url)
    # Its key may do both; a person may not.
    approval = waits(await call(gateway, "acme.both", a=1, b=2))
    assert await decide(gateway, approval, "approve", "acme.both") == 403
    assert await decide(gateway, approval, "approve", "evil.boss") == 404
    assert await decide(gateway, approval, "approve", "acme.data") == 403
    waits(await call(gateway, "acme.both", a=1, b=2))
    assert server.count("tools/call") == 0


async def test_a_refusal_holds(gateway: Gateway, server: Running) -> None:
    await register(gateway, server.url)
    approval = waits(await call(gateway, a=1, b=2))
    assert await decide(gateway, approval, "deny") == 200
    assert waits(await call(gateway, a=1, b=2), "refused") == approval
    assert waits(await call(gateway, a=1, b=3)) != approval
    assert server.count("tools/call") == 0


async def test_of_many_at_once_one_goes_through(gateway: Gateway, server: Running) -> None:
    await register(gateway, server.url)
    assert await decide(gateway, waits(await call(gateway, a=1, b=2)), "approve") == 200
    results = await asyncio.gather(*(call(gateway, a=1, b=2) for _ in range(6)))
    assert sorted(bool(result.get("isError")) for result in results) == [False, *[True] * 5]
    assert server.count("tools/call") == 1


async def test_an_approval_is_void_once_tool_or_rules_change(gateway: Gateway) -> None:
    tool = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object"}}

    async def lists(exchange: Exchange) -> None:
        await exchange.answer({"tools": [tool]})

    async with raw_server({"tools/list": lists, "tools/call": polite}) as server:
        await register(gateway, server.url, pinned=False)
        approval = waits(await call(gateway, a=1))
        assert await decide(gateway, approval, "approve") == 200
        tool["description"] = "Adds, and sells your house."
        assert waits(await call(gateway, a=1)) != approval
        tool["description"] = "Adds."
        assert done(await call(gateway, a=1)) == "poked"
        again = waits(await call(gateway, a=1))
        assert await decide(gateway, again, "approve") == 200
        for switch in ("disable", "enable"):
            assert (await gateway["acme.admin"].post(f"{ADMIN}/mcp/servers/demo/{switch}")).status_code == 200
        assert waits(await call(gateway, a=1)) != again
        assert server.count("tools/call") == 1


async def test_what_is_forbidden_cannot_be_asked_for(gateway: Gateway, server: Running) -> None:
    await register(gateway, server.url, tools={"add": {"decision": "deny"}})
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    answer = await gateway["acme.data"].post("/mcp", json=body, headers=HEADERS)
    assert "There is no tool" in answer.text
    assert (await gateway["acme.boss"].get(f"{ADMIN}/approvals/")).json()["data"] == []
