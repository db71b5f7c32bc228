"""A server that pours, drips, or never ends: what it may take of us is bounded, in bytes and in time."""

import asyncio
import json
from itertools import pairwise

import pytest

from tests.contract.mcp.conftest import Using, begun, poke, side_by_side
from tests.contract.mcp.test_misbehaving import only_bad
from tests.support.clocks import put_forward
from tests.support.mcp_servers import Behaviour, Exchange, polite
from tests.support.waiting import eventually

MIB = 1_048_576
EVENTS = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_twenty_mebibytes_are_not_read(using: Using) -> None:
    sent = 0
    cut_off, over = asyncio.Event(), asyncio.Event()

    async def pours(exchange: Exchange) -> None:
        nonlocal sent
        head = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' % exchange.rpc["id"]
        await exchange.respond(head, length=20 * MIB)
        try:
            while sent < 20 * MIB:
                exchange.writer.write(b"x" * 65536)
                await exchange.writer.drain()
                sent += 65536
        except ConnectionError:
            cut_off.set()
            raise

    async with using(only_bad(pours, over)) as (tools, server, _executor):
        bad, sibling = await side_by_side(tools, server, over)
        await asyncio.wait_for(cut_off.wait(), 30)
    assert bad.error is not None
    assert f"{8 * MIB} bytes" in bad.error.message
    assert sibling.error is None
    # What the kernel holds between the two is sent, too; cutting it off is what counts.
    assert sent < 20 * MIB


async def test_a_huge_event_is_not_read(using: Using) -> None:
    async def pours(exchange: Exchange) -> None:
        await exchange.respond(b"event: message\ndata: ", kind="text/event-stream", length=20 * MIB)
        for _ in range(320):
            exchange.writer.write(b"x" * 65536)
            await exchange.writer.drain()

    async with using(only_bad(pours), max_body_bytes=MIB) as (tools, _server, _executor):
        bad = await tools.call(poke(bad=True))
        assert bad.error is not None
        assert (await tools.call(poke("c2"))).error is None


async def test_silence_is_a_timeout(using: Using) -> None:
    async def sits(_exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with using(only_bad(sits), call_timeout_secs=60) as (tools, server, _executor):
        waiting = await begun(tools, server, poke(bad=True))
        sibling = await tools.call(poke("c2"))
        put_forward(60)
        bad = await waiting
    assert bad.error is not None
    assert bad.error.code == -32001
    assert sibling.error is None


async def test_a_session_that_never_opens_is_given_up(using: Using) -> None:
    async def sits(_exchange: Exchange) -> None:
        await asyncio.Event().wait()

    sitting = {"server/discover": sits, "initialize": sits}
    async with using(sitting, open_timeout_secs=15) as (tools, server, executor):
        listing = asyncio.create_task(tools.list_tools("raw"))
        await eventually(lambda: len(server.seen) > 0)
        put_forward(15)
        listed = await listing
        assert listed.error is not None
        assert "did not open a session" in listed.error.message
        assert executor.sessions == 0


async def drips(exchange: Exchange, drop: bytes) -> None:
    """Never more than a little, and never the end."""
    while True:
        exchange.writer.write(drop)
        await exchange.writer.drain()
        await asyncio.sleep(0.05)


async def drips_a_head(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 X\r\ncontent-type: ")
    await drips(exchange, b"a")


async def drips_a_body(exchange: Exchange) -> None:
    await exchange.respond(b"{", length=10_000)
    await drips(exchange, b" ")


async def drips_comments(exchange: Exchange) -> None:
    exchange.writer.write(EVENTS)
    await drips(exchange, b"4\r\n: \n\n\r\n")


async def reports_progress_for_ever(exchange: Exchange) -> None:
    exchange.writer.write(EVENTS)
    token = exchange.rpc["params"]["_meta"]["progressToken"]
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
    await drips(exchange, chunk(note))


async def asks_for_ever(exchange: Exchange) -> None:
    exchange.writer.write(EVENTS)
    await drips(exchange, chunk({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}}) * 40)


async def asks_to_retry_in_a_million_years(exchange: Exchange) -> None:
    body = f"id: 1\nretry: 1{'0' * 400}\ndata: \n\n"
    await exchange.respond(body.encode(), kind="text/event-stream")


def chunk(message: dict[str, object]) -> bytes:
    event = b"event: message\ndata: %b\n\n" % json.dumps(message).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


@pytest.mark.parametrize(
    "misdeed",
    [
        drips_a_head,
        drips_a_body,
        drips_comments,
        reports_progress_for_ever,
        asks_for_ever,
        asks_to_retry_in_a_million_years,
    ],
    ids=lambda each: each.__name__,
)
async def test_no_answer_takes_for_ever(using: Using, misdeed: Behaviour) -> None:
    on = only_bad(misdeed)
    async with using(on, call_timeout_secs=60, call_max_secs=120) as (tools, server, executor):
        await tools.list_tools("raw")
        waiting = await begun(tools, server, poke(bad=True))
        sibling = await tools.call(poke("c2"))
        for _ in range(5):
            # Long enough for something to drip, which may count as a sign of life.
            await asyncio.wait([waiting], timeout=0.12)
            put_forward(25)
        bad = await waiting
        assert bad.error is not None
        assert bad.error.code == -32001
        assert sibling.error is None
        assert (await tools.call(poke("c3"))).error is None
        assert server.count("server/discover") == 1
        assert server.count("initialize") <= 1
        assert executor.sessions == 1


async def pours_headers(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 X\r\n")
    await pours(exchange, b"x-more: %b\r\n" % (b"a" * 1000))


async def pours_notifications(exchange: Exchange) -> None:
    exchange.writer.write(EVENTS)
    message = {"level": "info", "data": "x" * 1000}
    await pours(exchange, chunk({"jsonrpc": "2.0", "method": "notifications/message", "params": message}))


async def pours_empty_chunks_of_one_event(exchange: Exchange) -> None:
    exchange.writer.write(EVENTS)
    await pours(exchange, b"400\r\n%b\r\n" % (b"data: " + b"x" * 1017 + b"\n"))


async def pours(exchange: Exchange, drop: bytes) -> None:
    """Without end, as long as somebody reads."""
    while True:
        exchange.writer.write(drop)
        await exchange.writer.drain()


@pytest.mark.parametrize(
    "misdeed",
    [pours_headers, pours_notifications, pours_empty_chunks_of_one_event],
    ids=lambda each: each.__name__,
)
async def test_no_answer_is_endless(using: Using, misdeed: Behaviour) -> None:
    gone, over = asyncio.Event(), asyncio.Event()

    async def until_cut_off(exchange: Exchange) -> None:
        try:
            await misdeed(exchange)
        except ConnectionError:
            gone.set()
            raise

    on = only_bad(until_cut_off, over)
    async with asyncio.timeout(60), using(on, max_body_bytes=MIB // 4) as (tools, server, executor):
        await tools.list_tools("raw")
        bad, sibling = await side_by_side(tools, server, over)
        await gone.wait()
        assert bad.error is not None
        assert bad.error.code != -32001
        assert sibling.error is None
        assert executor.sessions == 1


async def test_a_server_that_hangs_up_on_its_listener_is_not_asked_without_end(using: Using) -> None:
    asked: list[float] = []

    async def hangs_up(exchange: Exchange) -> None:
        if exchange.rpc:
            await polite(exchange)
            return
        asked.append(asyncio.get_running_loop().time())
        await exchange.respond(b"retry: 0\n\n", kind="text/event-stream")

    async def opens(exchange: Exchange) -> None:
        about = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
        result = {**about, "serverInfo": {"name": "raw", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": exchange.rpc["id"], "result": result}).encode()
        await exchange.respond(body, extra="mcp-session-id: s\r\n")

    async with using({"initialize": opens, "": hangs_up}) as (tools, _server, _executor):
        assert (await tools.call(poke())).error is None
        await asyncio.sleep(0.6)
    assert all(later - sooner > 0.2 for sooner, later in pairwise(asked))


async def test_a_tenants_calls_to_one_server_stand_in_line(using: Using) -> None:
    at_once, most = 0, 0
    full = asyncio.Event()

    async def counts(exchange: Exchange) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 3:
            full.set()
        await full.wait()
        # Whoever is let in beyond them comes meanwhile.
        await asyncio.sleep(0.05)
        at_once -= 1
        await polite(exchange)

    async with using({"tools/call": counts}, max_calls_per_server=3) as (tools, _server, _executor):
        results = await asyncio.gather(*(tools.call(poke(f"c{number}")) for number in range(12)))
    assert [result.output for result in results] == ["poked"] * 12
    assert most == 3
