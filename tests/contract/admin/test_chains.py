"""A server that remembers: what it knows from one response is there for the next of its chain, and for no other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer

from tests.contract.admin.conftest import Gateway
from tests.support.mcp_servers import Running, mcp_server
from tests.support.processes import simulator


def counting() -> MCPServer:
    """A server whose tool says how often it was called in this session."""
    server = MCPServer("counting")
    calls: Counter[str] = Counter()

    @server.tool(structured_output=False)
    async def count(context: Context) -> str:
        request = context.request_context.request
        assert request is not None
        session = request.headers.get("mcp-session-id", "none")
        calls[session] += 1
        return str(calls[session])

    return server


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with simulator() as url:
        yield url


@pytest.fixture
def workers(worker: str) -> tuple[str, ...]:
    return (worker,)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with mcp_server(counting(), legacy=True) as running:
        yield running


@pytest.fixture
async def registered(gateway: Gateway, server: Running) -> str:
    body = {"label": "counting", "config": {"url": server.url}}
    assert (await gateway["acme.admin"].post("/admin/v1/mcp/servers", json=body)).status_code == 201
    return "counting"


async def ask(gateway: Gateway, who: str, **more: Any) -> dict[str, Any]:
    tool = {"type": "mcp", "server_label": "counting", "require_approval": "never"}
    asked = {"model": "simulated", "input": f"count {json.dumps({})}", "tools": [tool], **more}
    answer = await gateway[who].post("/v1/responses", json=asked, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def count(gateway: Gateway, who: str = "acme.data", **more: Any) -> tuple[str, int]:
    """The id of a response, and how often the server says it was called."""
    made = await ask(gateway, who, **more)
    (call,) = [item for item in made["output"] if item["type"] == "mcp_call"]
    assert call["error"] is None, call
    return made["id"], int(call["output"])


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
async def test_a_chain_is_remembered_and_no_other_sees_it(gateway: Gateway) -> None:
    first, found = await count(gateway)
    assert found == 1
    other, found = await count(gateway)
    assert found == 1
    second, found = await count(gateway, previous_response_id=first)
    assert found == 2
    assert (await count(gateway, previous_response_id=other))[1] == 2
    # Counting tokens looks at the chain and does not go on from it.
    looked = {"model": "simulated", "input": "x", "previous_response_id": second}
    assert (await gateway["acme.data"].post("/v1/responses/input_tokens", json=looked)).status_code == 200
    assert (await count(gateway, previous_response_id=second))[1] == 3
    # What the server remembers by now is not what it was then.
    assert (await count(gateway, previous_response_id=first))[1] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
async def test_a_conversation_is_remembered_and_another_principal_has_its_own(gateway: Gateway) -> None:
    conversation = (await gateway["acme.data"].post("/v1/conversations", json={})).json()["id"]
    assert [(await count(gateway, conversation=conversation))[1] for _ in range(3)] == [1, 2, 3]
    assert (await count(gateway, "acme.both", conversation=conversation))[1] == 1
    first, _ = await count(gateway)
    assert (await count(gateway, "acme.both", previous_response_id=first))[1] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
async def test_an_approved_call_is_made_where_it_was_asked_for(gateway: Gateway) -> None:
    first, _ = await count(gateway)
    asks = [{"type": "mcp", "server_label": "counting"}]
    asked = await ask(gateway, "acme.data", previous_response_id=first, tools=asks)
    request = asked["output"][-1]
    assert request["type"] == "mcp_approval_request"
    yes = [{"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}]
    assert (await count(gateway, previous_response_id=asked["id"], tools=asks, input=yes))[1] == 2


@pytest.mark.slow
async def test_a_server_that_remembers_nothing_has_one_session(gateway: Gateway, server: Running) -> None:
    body = {"label": "counting", "config": {"url": server.url, "stateless": True}}
    assert (await gateway["acme.admin"].post("/admin/v1/mcp/servers", json=body)).status_code == 201
    assert [(await count(gateway))[1] for _ in range(3)] == [1, 2, 3]
    assert server.count("initialize") == 1
