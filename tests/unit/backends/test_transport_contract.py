"""What both clients promise, against servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.backends.plain import PlainTransport
from app.backends.secure import SecureTransport
from app.http1.transport import Answer, Call, Transport, TransportError, read_all
from tests.support.raw_http import OK, Peer, answering, chunked, get, post, raw_server, sized

LIMIT = 1_000_000
STREAM = OK + b"transfer-encoding: chunked\r\n\r\n"


class Heard:
    """A transport whose answers are heard, one piece at a time, where others are read."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, call: Call) -> Any:
        return HeardAnswer(await self._transport.send(call))


class HeardAnswer:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status, self.headers, self.release = answer.status, answer.headers, answer.release

    async def read(self) -> bytes:
        pieces: list[bytes] = []

        def take(data: bytes) -> bool:
            pieces.append(data)
            return False

        await self._answer.hear(take)
        (piece,) = pieces
        return piece


@pytest.fixture(params=["plain", "secure", "plain, heard", "secure, heard"])
def client(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Opens the client; async fixtures would run on another loop."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Any]:
        made = PlainTransport(keep_secs=60) if request.param.startswith("plain") else SecureTransport()
        try:
            yield Heard(made) if request.param.endswith("heard") else made
        finally:
            await made.close()

    return opened


async def fetched(transport: Transport, url: str, **given: float) -> tuple[int, bytes]:
    answer = await transport.send(get(url, **given))
    try:
        return answer.status, await read_all(answer, LIMIT)
    finally:
        answer.release()


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([sized(b"hello")], 200, b"hello"),
        ([sized(b"")], 200, b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ([sized(b"no", status=b"HTTP/1.1 404 Not Found\r\n")], 404, b"no"),
        ([STREAM, chunked(b"he", b"llo")], 200, b"hello"),
        ([STREAM, b"2;name=value\r\nhe\r\n3\r\nllo\r\n0\r\ntrailer: x\r\n\r\n"], 200, b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", sized(b"hello")], 200, b"hello"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + sized(b"hello")], 200, b"hello"),
        ([bytes([byte]) for byte in sized(b"hello", b"x-odd:   y  ")], 200, b"hello"),
        ([bytes([byte]) for byte in STREAM + chunked(b"hello")], 200, b"hello"),
    ],
)
async def test_answers(client: Any, pieces: list[bytes], status: int, body: bytes) -> None:
    async with raw_server(answering(*pieces)) as server, client() as transport:
        assert await fetched(transport, server.url) == (status, body)
        assert await fetched(transport, server.url) == (status, body)
        assert server.connections == 1, "the connection was not kept"


async def test_an_answer_may_end_with_the_connection(client: Any) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n", b"hel", b"lo")
        peer.close()

    async with raw_server(behave) as server, client() as transport:
        assert await fetched(transport, server.url) == (200, b"hello")
        assert await fetched(transport, server.url) == (200, b"hello")
        assert server.connections == 2


async def test_a_connection_that_will_close_is_not_kept(client: Any) -> None:
    async with raw_server(answering(sized(b"x", b"connection: close"))) as server, client() as transport:
        await fetched(transport, server.url)
        await fetched(transport, server.url)
        assert server.connections == 2


async def test_a_redirect_is_an_answer_like_any_other(client: Any) -> None:
    moved = sized(b"", b"location: /elsewhere", status=b"HTTP/1.1 302 Found\r\n")
    async with raw_server(answering(moved)) as server, client() as transport:
        assert await fetched(transport, server.url) == (302, b"")
        assert len(server.requests) == 1


async def test_what_is_sent(client: Any) -> None:
    async with raw_server(answering(sized(b"x", b"X-Thing: Y"))) as server, client() as transport:
        answer = await transport.send(post(server.url, b'{"a":1}'))
        assert answer.headers["x-thing"] == "Y"
        answer.release()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.lower().split(b"\r\n")
    assert first == b"post /x http/1.1"
    assert body == b'{"a":1}'
    assert f"host: {server.url.removeprefix('http://')}".encode() in lines
    assert b"content-length: 7" in lines
    assert b"content-type: application/json" in lines


async def test_a_large_body_arrives_whole(client: Any) -> None:
    big = b"x" * 3_000_000
    async with raw_server(answering(sized(b"ok"))) as server, client() as transport:
        answer = await transport.send(post(server.url, big))
        assert await read_all(answer, LIMIT) == b"ok"
        answer.release()
    assert server.requests[0].endswith(b"\r\n\r\n" + big)


# ── what goes wrong ───────────────────────────────────────────────────────────


def closing(*pieces: bytes, reset: bool = False) -> Callable[[Peer], Awaitable[None]]:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        if reset:
            # A reset destroys what the other side has not read. In small steps: after a standstill a loop's timers
            # come before what it reads.
            for _ in range(10):
                await asyncio.sleep(0.005)
            peer.reset()
        else:
            peer.close()

    return behave


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([sized(b"hello")[:-2]], "cut"),
        ([STREAM, chunked(b"he", end=False)], "cut"),
        ([STREAM, b"5\r\nhe"], "cut"),
        ([STREAM], "cut"),
    ],
)
async def test_an_answer_that_is_cut(client: Any, reset: bool, pieces: list[bytes], kind: str) -> None:
    async with raw_server(closing(*pieces, reset=reset)) as server, client() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, server.url)
    assert caught.value.kind == kind


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\ncontent-le"], [b"HTTP/1.1 100 Continue\r\n\r\n"]])
async def test_a_connection_that_closes_before_the_answer(client: Any, reset: bool, pieces: list[bytes]) -> None:
    async with raw_server(closing(*pieces, reset=reset)) as server, client() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, server.url)
    assert caught.value.kind in {"disconnected", "cut"}


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        OK + b"content-length: x\r\n\r\n",
        STREAM + b"zz\r\n",
        OK + b"x: " + b"y" * 200_000 + b"\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_nonsense(client: Any, answer: bytes) -> None:
    async with raw_server(answering(answer)) as server, client() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, server.url)
    assert caught.value.kind == "nonsense"
    assert server.url not in caught.value.message


async def test_nobody_there(client: Any) -> None:
    async with raw_server(answering()) as server:
        url = server.url
    async with client() as transport:
        with pytest.raises(TransportError, match="connection refused") as caught:
            await fetched(transport, url)
    assert caught.value.kind == "unreachable"


async def test_a_name_nobody_has(client: Any) -> None:
    async with client() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, "http://nobody.invalid:1")
    assert caught.value.kind == "unreachable"
    assert "nobody.invalid" not in caught.value.message


@pytest.mark.parametrize(("given", "kind"), [({"connect": 0.2}, "connect_timeout"), ({"total": 0.2}, "total_timeout")])
async def test_a_server_that_accepts_nobody(client: Any, given: dict[str, float], kind: str) -> None:
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):  # its queue is full now: the kernel answers no more
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with client() as transport:
            with pytest.raises(TransportError) as caught:
                await fetched(transport, f"http://127.0.0.1:{full.getsockname()[1]}", **given)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("pieces", "given", "kind"),
    [
        ([], {"first_byte": 0.1}, "first_byte_timeout"),
        ([], {"total": 0.1}, "total_timeout"),
        ([STREAM], {"first_byte": 0.1}, "first_byte_timeout"),
        ([STREAM, chunked(b"x", end=False)], {"idle": 0.1}, "idle_timeout"),
        ([STREAM, chunked(b"x", end=False)], {"total": 0.1}, "total_timeout"),
    ],
)
async def test_a_server_that_goes_silent(client: Any, pieces: list[bytes], given: dict[str, float], kind: str) -> None:
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        try:
            await peer.request()
            await peer.send(sized(b"hello"))
            await peer.request()
            await peer.send(*pieces)
            await peer.gone()
        finally:
            gone.set()

    async with raw_server(behave) as server, client() as transport:
        # The short time is for an answer, not for connecting.
        assert await fetched(transport, server.url) == (200, b"hello")
        with pytest.raises(TransportError) as caught:
            await fetched(transport, server.url, **given)
        assert caught.value.kind == kind
        assert server.connections == 1
        async with asyncio.timeout(30):
            await gone.wait()


@pytest.mark.slow
async def test_a_slow_drip_ends_with_the_total(client: Any) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while True:
            await peer.send(chunked(b"x", end=False))
            await asyncio.sleep(0.02)

    async with raw_server(behave) as server, client() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, server.url, idle=1.1, first_byte=1.1, total=1.3)
    assert caught.value.kind == "total_timeout"


# ── leaving early ─────────────────────────────────────────────────────────────


async def leaving(transport: Transport, leave: Callable[[str], Awaitable[None]], *pieces: bytes) -> None:
    """Assert that the server sees the connection close after `leave`."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        asked.set()
        await peer.gone()
        gone.set()

    async with raw_server(behave) as server:
        task = asyncio.create_task(leave(server.url))
        async with asyncio.timeout(30):
            await asked.wait()
            if not pieces:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await gone.wait()


async def test_releasing_an_answer_early_aborts_it(client: Any) -> None:
    async with client() as transport:

        async def leave(url: str) -> None:
            answer = await transport.send(get(url))
            assert await answer.read() == b"x"
            answer.release()
            answer.release()

        await leaving(transport, leave, STREAM, chunked(b"x", end=False))


async def test_cancelling_a_request_aborts_it(client: Any) -> None:
    async with client() as transport:

        async def leave(url: str) -> None:
            await transport.send(get(url))

        await leaving(transport, leave)


@pytest.mark.slow
async def test_a_slow_reader_slows_the_server(client: Any) -> None:
    sent = 0
    piece = chunked(b"x" * 65_536, end=False)

    async def behave(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(STREAM)
        for _ in range(1000):
            await peer.send(piece)
            sent += 1
        await peer.send(chunked())

    async with raw_server(behave) as server, client() as transport:
        answer = await transport.send(get(server.url, idle=1.1))
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 500, "the client took more than it was asked for"
        await asyncio.sleep(1.0)  # with the above longer than the server may be silent: it is not the one who is
        size = 0
        while data := await answer.read():
            size += len(data)
            assert len(data) < 2_000_000
        assert size == 1000 * 65_536
        answer.release()


@pytest.mark.parametrize("made", [PlainTransport, SecureTransport])
async def test_who_hears_a_body_hears_it_as_it_comes_until_they_have_enough_or_fail(made: Callable[[], Any]) -> None:
    heard: list[bytes] = []

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        for word in (b"a", b"b", b"enough", b"c", b"fault", b"d"):
            had = len(heard)
            await peer.send(chunked(word, end=False))
            while len(heard) == had:  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.005)
        await peer.send(chunked())

    def take(data: bytes) -> bool:
        heard.append(data)
        if data == b"fault":
            raise LookupError
        return data != b"enough"

    transport = made()
    async with raw_server(behave) as server:
        answer = await transport.send(get(server.url))
        await answer.hear(take)
        assert heard == [b"a", b"b", b"enough"]
        with pytest.raises(LookupError):
            await answer.hear(take)
        assert heard[3:] == [b"c", b"fault"]
        await answer.hear(take)
        assert heard[5:] == [b"d", b""]
        answer.release()
    await transport.close()


async def test_a_whole_body_has_a_limit(client: Any) -> None:
    async with raw_server(answering(sized(b"x" * 1000))) as server, client() as transport:
        answer = await transport.send(get(server.url))
        with pytest.raises(TransportError, match="larger than 999 bytes"):
            await read_all(answer, 999)
        answer.release()
