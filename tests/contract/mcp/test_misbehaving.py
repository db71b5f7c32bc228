"""A server that breaks its promises hurts the one call that met it: its siblings and the next call end well."""

import asyncio
import json

import pytest

from tests.contract.mcp.conftest import Using, poke, side_by_side
from tests.support.mcp_servers import Behaviour, Exchange, polite

TEXT = {"content": [{"type": "text", "text": "poked"}]}


def only_bad(misbehave: Behaviour, over: asyncio.Event | None = None) -> dict[str, Behaviour]:
    """Calls with `bad` misbehave, calls with `slow` are answered when that is `over`, others at once."""

    async def call(exchange: Exchange) -> None:
        arguments = exchange.rpc["params"].get("arguments") or {}
        if arguments.get("bad"):
            await misbehave(exchange)
            return
        if arguments.get("slow"):
            assert over is not None
            await over.wait()
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


async def sends_octets(exchange: Exchange) -> None:
    await exchange.respond(b"\x00\x01\x02", kind="application/octet-stream")


async def says_events_and_sends_json(exchange: Exchange) -> None:
    answer = {"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": TEXT}
    await exchange.respond(json.dumps(answer).encode(), kind="text/event-stream")


async def says_json_and_sends_events(exchange: Exchange) -> None:
    answer = {"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": TEXT}
    await exchange.respond(b"event: message\ndata: %b\n\n" % json.dumps(answer).encode())


async def sends_nothing(exchange: Exchange) -> None:
    await exchange.respond(b"", status=204)


async def takes_note(exchange: Exchange) -> None:
    await exchange.respond(b"", status=202)


async def switches_protocols(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
    exchange.writer.close()


async def says_two_lengths(exchange: Exchange) -> None:
    await exchange.respond(b"{}", extra="content-length: 3\r\n")
    exchange.writer.close()


async def breaks_a_chunk(exchange: Exchange) -> None:
    head = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    exchange.writer.write(head + b"zz\r\n{}\r\n")
    exchange.writer.close()


async def nests_for_ever(exchange: Exchange) -> None:
    head = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"structuredContent":' % exchange.rpc["id"]
    await exchange.respond(head + b"[" * 100_000 + b"]" * 100_000 + b"}}")


async def nests_for_ever_in_an_event(exchange: Exchange) -> None:
    nest = b'{"jsonrpc":"2.0","id":%d,"result":' % exchange.rpc["id"] + b"[" * 100_000 + b"]" * 100_000 + b"}"
    await exchange.respond(b"event: message\ndata: %b\n\n" % nest, kind="text/event-stream")


async def has_more_than_a_number_holds(exchange: Exchange) -> None:
    told = {"progressToken": exchange.rpc["params"]["_meta"].get("progressToken"), "progress": 10**400}
    note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
    await exchange.respond(f"event: message\ndata: {note}\n\n".encode(), kind="text/event-stream")


async def sends_a_million_crumbs(exchange: Exchange) -> None:
    crumbs = b'{"type":"text","text":""},' * 200_000 + b'{"type":"text","text":""}'
    await exchange.respond(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[%b]}}' % (exchange.rpc["id"], crumbs))


async def fails_without_words(exchange: Exchange) -> None:
    await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "error": {"code": "x"}}).encode())


async def asks_for_input(exchange: Exchange) -> None:
    await exchange.answer({"resultType": "input_required", "requestState": "again", "inputRequests": {}})


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
    sends_octets,
    says_events_and_sends_json,
    says_json_and_sends_events,
    sends_nothing,
    takes_note,
    switches_protocols,
    says_two_lengths,
    breaks_a_chunk,
    nests_for_ever,
    nests_for_ever_in_an_event,
    has_more_than_a_number_holds,
    sends_a_million_crumbs,
    fails_without_words,
    asks_for_input,
]


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda each: each.__name__)
async def test_a_misdeed_fails_one_call_and_no_other(using: Using, misdeed: Behaviour) -> None:
    over = asyncio.Event()
    async with using(only_bad(misdeed, over)) as (tools, server, executor):
        await tools.list_tools("raw")
        bad, sibling = await side_by_side(tools, server, over)
        after = await tools.call(poke("c3"))
        assert bad.error is not None
        assert bad.error.kind in {"http_error", "mcp_protocol_error"}
        assert "internal" not in bad.error.message
        assert (sibling.output, sibling.error) == ("poked", None)
        assert (after.output, after.error) == ("poked", None)
        assert server.count("server/discover") == 1
        assert server.count("initialize") <= 1
        assert executor.sessions == 1


async def test_what_a_server_says_is_cut_to_one_short_line(using: Using) -> None:
    async def talks(exchange: Exchange) -> None:
        error = {"code": -32000, "message": "line\n" * 5000}
        await exchange.respond(json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "error": error}).encode())

    async with using(only_bad(talks)) as (tools, _server, _executor):
        result = await tools.call(poke(bad=True))
    assert result.error is not None
    assert "\n" not in result.error.message
    assert len(result.error.message) < 600


async def test_polite_is_polite(using: Using) -> None:
    async with using({"tools/call": polite}) as (tools, _server, _executor):
        assert [each.name for each in (await tools.list_tools("raw")).tools] == ["poke"]
        assert (await tools.call(poke())).output == "poked"
