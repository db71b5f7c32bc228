"""The client that MCP traffic goes through: one connection for many requests, and no request twice."""

import asyncio
import ssl
from pathlib import Path

import httpx2
import pytest

from app.http1 import connection
from app.http1.transport import Timeouts
from app.mcp.outbound import Outgoing, VettedTransport, way_to
from app.mcp.reach import Reach
from tests.support.certificates import certificate
from tests.support.raw_http import OK, Peer, raw_server, sized
from tests.support.waiting import eventually

HERE = Reach(loopback=True)


async def fetch(transport: VettedTransport, url: str, body: bytes = b"") -> bytes:
    request = httpx2.Request("POST", url, content=body)
    response = await transport.handle_async_request(request)
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def test_requests_share_a_connection_when_the_answer_was_read() -> None:
    async def answers(peer: Peer) -> None:
        while True:
            said = await peer.request()
            await peer.send(sized(said.rpartition(b"\r\n")[2]))

    async with raw_server(answers) as server:
        transport = VettedTransport(HERE)
        assert [await fetch(transport, server.url, b"%d" % n) for n in range(3)] == [b"0", b"1", b"2"]
        await transport.aclose()
    assert server.connections == 1


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def answers_once(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"x"))
        peer.close()

    async with raw_server(answers_once) as server:
        transport = VettedTransport(HERE)
        for _ in range(3):
            assert await fetch(transport, server.url) == b"x"
        await transport.aclose()
    assert server.connections == len(server.requests) == 3


async def test_a_request_that_was_sent_is_not_sent_again() -> None:
    async def answers_then_hangs_up(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"x"))
        await peer.request()
        peer.close()

    async with raw_server(answers_then_hangs_up) as server:
        transport = VettedTransport(HERE)
        await fetch(transport, server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            await fetch(transport, server.url)
        await transport.aclose()
    assert len(server.requests) == 2


async def test_a_stream_that_is_ending_leaves_its_connection_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_DISCARD_SECS", 3600.0)
    go_on = asyncio.Event()

    async def ends_later(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            await go_on.wait()
            await peer.send(b"0\r\n\r\n")

    async with raw_server(ends_later) as server:
        transport = VettedTransport(HERE)
        sent = Outgoing("POST", way_to(httpx2.URL(server.url)), {})
        deadline = asyncio.get_running_loop().time() + 60
        answer = await transport.send(sent, Timeouts(connect=60, first_byte=60, idle=60, total=60), deadline)
        assert await answer.read() == b"x"
        answer.release(ending=True)
        go_on.set()
        await eventually(lambda: transport.idle == 1)
        assert await fetch(transport, server.url) == b"x"
        await transport.aclose()
    assert server.connections == 1


async def test_a_header_that_comes_twice_is_a_cookie() -> None:
    async def two(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"set-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n")

    async with raw_server(two) as server:
        transport = VettedTransport(HERE)
        response = await transport.handle_async_request(httpx2.Request("POST", server.url))
        await response.aclose()
        await transport.aclose()
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]


async def test_a_server_behind_tls_is_believed_by_its_certificate(tmp_path: Path) -> None:
    async def answers(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"secret"))

    public, tls = certificate(tmp_path)
    async with raw_server(answers, tls) as server:
        transport = VettedTransport(HERE, tls=ssl.create_default_context(cafile=str(public)))
        assert await fetch(transport, server.url) == b"secret"
        await transport.aclose()
        stranger = VettedTransport(HERE)
        with pytest.raises(httpx2.ConnectError):
            await fetch(stranger, server.url)
        await stranger.aclose()
