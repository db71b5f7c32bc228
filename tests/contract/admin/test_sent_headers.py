"""Headers and tokens that a request brings for one of its servers: which may be sent, and to whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.admin.conftest import Gateway
from tests.support.mcp_servers import raw_server
from tests.support.processes import simulator


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with simulator() as url:
        yield url


@pytest.fixture
def workers(worker: str) -> tuple[str, ...]:
    return (worker,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example"),
        ("Cookie", "a=b"),
        ("Mcp-Session-Id", "theirs"),
        ("mcp-protocol-version", "2024-11-05"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "0"),
        ("Proxy-Authorization", "Basic x"),
        ("x-split", "a\r\nhost: evil.example"),
        ("x bad", "y"),
    ],
)
async def test_what_is_ours_or_the_connections_may_not_be_set(gateway: Gateway, name: str, value: str) -> None:
    async with raw_server({}) as server:
        tool = {"type": "mcp", "server_label": "raw", "server_url": server.url, "headers": {name: value}}
        asked = {"model": "simulated", "input": "hello", "tools": [{"type": "function", "name": "f"}, tool]}
        answer = await gateway["acme.data"].post("/v1/responses", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("tools[1].headers")
    assert server.seen == []


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"server_label": "nobody"}, "tools[1].server_url"),
        ({"server_label": "x", "connector_id": "connector_nobody"}, "tools[1].connector_id"),
        ({"server_label": "x", "server_url": "http://me:secret@example.org/mcp"}, "tools[1].server_url"),
        (
            {"server_label": "x", "server_url": "http://example.org", "authorization": "\u00e9"},
            "tools[1].authorization",
        ),
    ],
)
async def test_which_of_the_tools_is_wrong_is_said(gateway: Gateway, tool: dict[str, str], param: str) -> None:
    tools = [{"type": "function", "name": "f"}, {"type": "mcp", **tool}]
    answer = await gateway["acme.data"].post("/v1/responses", json={"model": "simulated", "input": "x", "tools": tools})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.slow
async def test_a_token_goes_to_its_own_server_and_no_further(gateway: Gateway) -> None:
    async with raw_server({}) as one, raw_server({}) as two:
        tools = [
            {
                "type": "mcp",
                "server_label": label,
                "server_url": server.url,
                "require_approval": "never",
                "authorization": f"token-of-{label}",
                "headers": {"x-mine": f"header-of-{label}"},
            }
            for label, server in (("one", one), ("two", two))
        ]
        asked = {"model": "simulated", "input": "one__poke {} two__poke {}", "tools": tools}
        answer = await gateway["acme.data"].post("/v1/responses", json=asked, timeout=30)
        assert answer.status_code == 200, answer.text
        # What a request brings is for this request: it is neither kept nor told.
        assert "token-of" not in answer.text
        assert "header-of" not in answer.text
        for label, server in (("one", one), ("two", two)):
            assert server.count("tools/call") == 1
            given = {(seen.headers["authorization"], seen.headers["x-mine"]) for seen in server.seen}
            assert given == {(f"Bearer token-of-{label}", f"header-of-{label}")}
