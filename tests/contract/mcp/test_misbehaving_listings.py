"""A server that breaks its promises when it lists its tools is shown as failed, soon, and the one beside it works."""

import asyncio
import json
from typing import Any

import pytest

from tests.contract.mcp.conftest import Using, poke
from tests.support.clocks import put_forward
from tests.support.mcp_servers import Behaviour, Exchange
from tests.support.waiting import eventually

MIB = 1_048_576


def tool(name: str, schema: object = None) -> dict[str, Any]:
    return {"name": name, "inputSchema": schema or {"type": "object"}}


async def test_endless_pages_end(using: Using) -> None:
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


async def test_a_cursor_that_comes_back_is_noticed(using: Using) -> None:
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


async def test_nine_thousand_tools_are_too_many(using: Using) -> None:
    async def many(exchange: Exchange) -> None:
        await exchange.answer({"tools": [tool(f"t{n}") for n in range(9_000)]})

    async with using({"tools/list": many}) as (tools, _server, _executor):
        listed = await tools.list_tools("raw")
    assert listed.error is not None
    assert "more than 1000 tools" in listed.error.message


async def test_a_listing_that_is_no_listing_is_an_error_of_the_server(using: Using) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.answer({"tools": [{"name": 7}]})

    async with using({"tools/list": odd}) as (tools, _server, executor):
        listed = await tools.list_tools("raw")
        assert listed.error is not None
        assert "not valid MCP" in listed.error.message
        assert executor.sessions == 1


# ── no listing at all ─────────────────────────────────────────────────────────


async def sends_html(exchange: Exchange) -> None:
    await exchange.respond(b"<h1>Login</h1>", kind="text/html")


async def sends_too_much(exchange: Exchange) -> None:
    await exchange.answer({"tools": [tool("t", {"type": "object", "pad": "x" * 20 * MIB})]})


async def stops_in_the_middle(exchange: Exchange) -> None:
    await exchange.respond(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[', length=10_000)
    exchange.writer.close()


async def never_stops(exchange: Exchange) -> None:
    await exchange.respond(b"{", length=10_000)
    while True:
        exchange.writer.write(b" ")
        await exchange.writer.drain()
        await asyncio.sleep(0.05)


async def hangs_up(exchange: Exchange) -> None:
    exchange.writer.close()


async def nests_for_ever(exchange: Exchange) -> None:
    head = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[{"name":"t","inputSchema":' % exchange.rpc["id"]
    deep = b'{"allOf":[' * 50_000 + b"{}" + b"]}" * 50_000
    await exchange.respond(head + deep + b"}]}}")


@pytest.mark.parametrize(
    "misdeed",
    [sends_html, sends_too_much, stops_in_the_middle, never_stops, hangs_up, nests_for_ever],
    ids=lambda each: each.__name__,
)
async def test_what_is_no_listing_is_shown_as_the_servers_failure(using: Using, misdeed: Behaviour) -> None:
    async with using({"tools/list": misdeed}, list_timeout_secs=20) as (tools, server, _executor):
        listing = asyncio.create_task(tools.list_tools("raw"))
        await eventually(lambda: server.count("tools/list") > 0)
        if misdeed is never_stops:
            await asyncio.wait([listing], timeout=0.12)
            put_forward(20)
        listed = await listing
        assert listed.error is not None
        assert listed.tools == ()
        assert "'raw'" in listed.error.message
        # A call needs no listing where nothing depends on one.
        assert (await tools.call(poke())).error is None


# ── schema bombs ──────────────────────────────────────────────────────────────


def doubling(levels: int) -> dict[str, Any]:
    """A schema that is small as it is written, and 2 to the power of `levels` when its references are followed."""
    defs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "object"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "allOf": [schema]}
    return schema


CATASTROPHE = {"type": "object", "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}}


@pytest.mark.parametrize("where", ["inputSchema", "outputSchema"])
async def test_no_pattern_of_a_server_is_ever_run(using: Using, where: str) -> None:
    offered = {**tool("poke"), where: CATASTROPHE}
    text = "a" * 5_000 + "!"

    async def lists(exchange: Exchange) -> None:
        await exchange.answer({"tools": [offered]})

    async def answers(exchange: Exchange) -> None:
        await exchange.answer({"content": [], "structuredContent": {"text": text}})

    async with asyncio.timeout(30), using({"tools/list": lists, "tools/call": answers}) as (tools, _server, _executor):
        assert [each.name for each in (await tools.list_tools("raw")).tools] == ["poke"]
        assert (await tools.call(poke(text=text))).output == json.dumps({"text": text}, separators=(",", ":"))


async def test_references_are_not_followed(using: Using) -> None:
    fetched = 0

    async def serves(exchange: Exchange) -> None:
        nonlocal fetched
        fetched += not exchange.rpc
        await exchange.respond(b'{"type":"object"}')

    async def lists(exchange: Exchange) -> None:
        here = f"http://{exchange.headers['host']}/schema"
        await exchange.answer({"tools": [tool("poke", doubling(60)), tool("away", {"type": "object", "$ref": here})]})

    async with asyncio.timeout(30), using({"tools/list": lists, "": serves}) as (tools, _server, _executor):
        assert [each.name for each in (await tools.list_tools("raw")).tools] == ["poke"]
        assert (await tools.call(poke())).error is None
    assert fetched == 0


async def test_a_schema_that_is_too_deep_is_not_shown(using: Using) -> None:
    async def lists(exchange: Exchange) -> None:
        await exchange.answer({"tools": [tool("deep", nested(40)), tool("poke", nested(5))]})

    async with using({"tools/list": lists}) as (tools, _server, _executor):
        assert [each.name for each in (await tools.list_tools("raw")).tools] == ["poke"]
