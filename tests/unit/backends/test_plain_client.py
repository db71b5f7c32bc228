"""What only our own client does: keeping connections, and giving a stale one a second try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.backends.plain import PlainTransport
from app.http1 import connection
from app.http1.connection import Connection
from app.http1.pool import Origin, Pool, split
from app.http1.transport import Call, TransportError, read_all
from tests.support.raw_http import OK, Peer, answering, chunked, get, post, raw_server, sized, timeouts
from tests.support.waiting import eventually

STREAM = OK + b"transfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def plain(keep_secs: float = 60.0, keep_most: int = 256) -> AsyncGenerator[PlainTransport]:
    made = PlainTransport(keep_secs=keep_secs, keep_most=keep_most)
    try:
        yield made
    finally:
        await made.close()


async def fetched(transport: PlainTransport, call: Call) -> bytes:
    answer = await transport.send(call)
    try:
        return await read_all(answer, 1000)
    finally:
        answer.release()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that are ending are given longer than any test takes."""
    monkeypatch.setattr(connection, "_DISCARD_SECS", 3600.0)


# ── keeping ───────────────────────────────────────────────────────────────────


async def test_as_many_connections_as_requests_at_once_and_they_are_used_again() -> None:
    async with raw_server(answering(sized(b"x"))) as server, plain() as transport:
        for _ in range(3):
            await asyncio.gather(*(fetched(transport, get(server.url)) for _ in range(5)))
        assert server.connections == 5


async def test_origins_do_not_share_connections() -> None:
    async with (
        raw_server(answering(sized(b"one"))) as one,
        raw_server(answering(sized(b"two"))) as two,
        plain() as transport,
    ):
        for _ in range(2):
            assert await fetched(transport, get(one.url)) == b"one"
            assert await fetched(transport, get(two.url)) == b"two"
        assert (one.connections, two.connections) == (1, 1)


async def test_no_more_idle_connections_than_allowed() -> None:
    async with raw_server(answering(sized(b"x"))) as server, plain(keep_most=2) as transport:
        await asyncio.gather(*(fetched(transport, get(server.url)) for _ in range(5)))
        await asyncio.gather(*(fetched(transport, get(server.url)) for _ in range(5)))
        assert server.connections == 5 + 3


async def test_an_idle_connection_grows_old() -> None:
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"x"))
        await peer.gone()
        gone.set()

    async with raw_server(behave) as server, plain(keep_secs=0.05) as transport:
        await fetched(transport, get(server.url))
        await asyncio.sleep(0.1)
        await fetched(transport, get(server.url))
        assert server.connections == 2
        await gone.wait()


@pytest.mark.usefixtures("patient")
async def test_an_answer_that_is_about_to_end_keeps_its_connection() -> None:
    told = asyncio.Event()

    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM, chunked(b"done", end=False))
            await told.wait()
            await peer.send(chunked())

    async with raw_server(behave) as server, plain() as transport:
        for _ in range(3):
            told.clear()
            answer = await transport.send(get(server.url))
            assert await answer.read() == b"done"
            answer.release(ending=True)
            told.set()
            await eventually(lambda: len(transport._pool) == 1)
        assert server.connections == 1


@pytest.mark.parametrize(("more", "patience"), [(b"", 0.05), (chunked(b"x" * 200_000, end=False), 3600.0)])
async def test_an_answer_that_does_not_end_after_all_is_aborted(
    more: bytes, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_DISCARD_SECS", patience)
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM, chunked(b"done", end=False))
        await peer.send(more)
        await peer.gone()
        gone.set()

    async with raw_server(behave) as server, plain() as transport:
        answer = await transport.send(get(server.url))
        await answer.read()
        answer.release(ending=True)
        async with asyncio.timeout(30):
            await gone.wait()
        assert len(transport._pool) == 0


@pytest.mark.parametrize("extra", [b"x", sized(b"another answer"), b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_a_connection_on_which_something_unasked_came_is_not_used(extra: bytes) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"x") + extra)
        await peer.gone()

    async with raw_server(behave) as server, plain() as transport:
        assert await fetched(transport, get(server.url)) == b"x"
        assert await fetched(transport, get(server.url)) == b"x"
        assert server.connections == 2


async def test_something_unasked_on_an_idle_connection_closes_it() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"x"))
        await eventually(lambda: len(transport._pool) == 1)
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await peer.gone()

    async with raw_server(behave) as server, plain() as transport:
        await fetched(transport, get(server.url))
        await eventually(lambda: len(transport._pool) == 0)


async def test_a_server_that_answers_before_it_has_read_the_request() -> None:
    async def behave(peer: Peer) -> None:
        await peer.send(sized(b"too large", status=b"HTTP/1.1 413 Too Large\r\n"))
        await asyncio.sleep(3600)

    async with raw_server(behave) as server, plain() as transport:
        answer = await transport.send(post(server.url, b"x" * 20_000_000))
        assert answer.status == 413
        assert await read_all(answer, 1000) == b"too large"
        answer.release()
        assert len(transport._pool) == 0


async def test_an_answer_that_ends_with_the_connection_does_not_end_with_a_reset() -> None:
    heard = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nhel")
        await heard.wait()  # a reset destroys what the other side has not read
        peer.reset()

    async with raw_server(behave) as server, plain() as transport:
        answer = await transport.send(get(server.url))
        assert await answer.read() == b"hel"
        heard.set()
        with pytest.raises(TransportError) as caught:
            await answer.read()
        answer.release()
    assert caught.value.kind == "cut"


async def test_a_trailer_is_no_header() -> None:
    coded = OK + b"x-thing: head\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-thing: tail\r\n\r\n"
    async with raw_server(answering(coded)) as server, plain() as transport:
        answer = await transport.send(get(server.url))
        assert await read_all(answer, 10) == b"a"
        answer.release()
        assert answer.headers["x-thing"] == "head"


async def test_a_connection_that_was_given_up_before_it_was_made() -> None:
    gone, left = asyncio.Event(), asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.gone()
        gone.set()

    async with raw_server(behave) as server:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, lambda _: None, lambda _: left.set())
        connection.abort()
        origin, _ = split(server.url)
        await loop.create_connection(lambda: connection, origin.host, origin.port)
        async with asyncio.timeout(30):
            await gone.wait()
            await left.wait()


# ── a stale connection ────────────────────────────────────────────────────────


async def test_a_connection_that_turns_out_to_be_closed_is_tried_again_once() -> None:
    connections = 0

    async def behave(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        first = connections == 1
        await peer.request()
        await peer.send(sized(b"x"))
        if first:
            await peer.request()  # arrives just when the server closes
            peer.close()
        else:
            await peer.gone()

    async with raw_server(behave) as server, plain() as transport:
        assert await fetched(transport, post(server.url)) == b"x"
        assert await fetched(transport, post(server.url)) == b"x"
        assert server.connections == 2
        assert len(server.requests) == 3


async def test_once_only() -> None:
    served = 0

    async def behave(peer: Peer) -> None:
        nonlocal served
        await peer.request()
        served += 1
        if served == 1:
            await peer.send(sized(b"x"))
            await peer.request()
        peer.close()

    async with raw_server(behave) as server, plain() as transport:
        await fetched(transport, post(server.url))
        with pytest.raises(TransportError) as caught:
            await fetched(transport, post(server.url))
        assert caught.value.kind == "disconnected"
        assert len(server.requests) == 3


async def test_a_fresh_connection_is_not_tried_again() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        peer.close()

    async with raw_server(behave) as server, plain() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, post(server.url))
        assert caught.value.kind == "disconnected"
        assert len(server.requests) == 1


async def test_a_request_that_began_to_be_answered_is_not_sent_again() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b"x"))
        await peer.request()
        await peer.send(b"HTTP/1.1 2")
        peer.close()

    async with raw_server(behave) as server, plain() as transport:
        await fetched(transport, post(server.url))
        with pytest.raises(TransportError) as caught:
            await fetched(transport, post(server.url))
        assert caught.value.kind == "cut"
        assert len(server.requests) == 2


class Later:
    """The running loop, whose clock can be put forward. Timers that were set before do not know."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ahead = 0.0

    def time(self) -> float:
        return self._loop.time() + self.ahead

    def call_at(self, when: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        return self._loop.call_at(when - self.ahead, callback, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def test_a_stale_connection_does_not_add_to_the_time() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        if len(server.requests) == 1:
            await peer.send(sized(b"x"))
            await peer.request()
            # What the first try took is all the time there was: the second has none of its own.
            clock.ahead = 61.0
            peer.close()
        await peer.gone()

    async with raw_server(behave) as server, plain(keep_secs=3600) as transport:
        clock = transport._loop = cast("Any", Later())
        await fetched(transport, post(server.url))
        async with asyncio.timeout(30):
            with pytest.raises(TransportError) as caught:
                await fetched(transport, post(server.url, total=60))
        assert caught.value.kind == "total_timeout"
        assert server.connections == 2


# ── limits ────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_dripping_a_head_does_not_buy_time() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        while True:
            await peer.send(b"x: y\r\n")
            await asyncio.sleep(0.02)

    async with raw_server(behave) as server, plain() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, get(server.url, first_byte=0.3))
        assert caught.value.kind == "first_byte_timeout"


async def test_endless_interim_answers_are_nonsense() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    async with raw_server(behave) as server, plain() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, get(server.url))
        assert caught.value.kind == "nonsense"


async def test_changing_the_protocol_is_nonsense() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxyz"
    async with raw_server(answering(switching)) as server, plain() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, get(server.url))
        assert caught.value.kind == "nonsense"


async def test_closing_the_client_ends_what_goes_on() -> None:
    async with raw_server(answering(STREAM)) as server, plain() as transport:
        answer = await transport.send(get(server.url))
        await transport.close()
        with pytest.raises(TransportError) as caught:
            await answer.read()
        assert caught.value.kind == "cut"
        answer.release()
        await eventually(lambda: not transport._connections)


async def test_no_connection_outlives_its_exchange() -> None:
    async with raw_server(answering(STREAM, chunked(b"x", end=False))) as server, plain() as transport:
        for _ in range(10):
            answer = await transport.send(get(server.url))
            answer.release()
        await eventually(lambda: not transport._connections)


# ── requests ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "🐑"])
async def test_a_header_cannot_smuggle_another(value: str) -> None:
    call = Call(method="GET", url="http://127.0.0.1:9/", headers={"x": value}, timeouts=timeouts())
    async with plain() as transport:
        with pytest.raises(TransportError, match="cannot be used") as caught:
            await transport.send(call)
        assert value not in caught.value.message


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://h", Origin("h", 80, "h"), "/"),
        ("http://H:8000/v1/x?a=b", Origin("h", 8000, "h:8000"), "/v1/x?a=b"),
        ("http://[::1]:8000/v1", Origin("::1", 8000, "[::1]:8000"), "/v1"),
    ],
)
def test_urls(url: str, origin: Origin, target: str) -> None:
    assert split(url) == (origin, target)


@pytest.mark.parametrize("url", ["https://h/", "h:80", "http://", "http://h/a b", "http://h/é", "http://h:x/"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's own or ours
        split(url)


async def test_a_worker_with_a_url_that_is_none_cannot_be_reached() -> None:
    async with plain() as transport:
        with pytest.raises(TransportError) as caught:
            await fetched(transport, get("http://h/a b"))
    assert caught.value.kind == "unreachable"


def test_the_freshest_connection_is_used_first() -> None:
    loop = asyncio.new_event_loop()
    try:
        origin, pool = Origin("h", 80, "h"), Pool(10, 5)
        made = [Connection(loop, lambda _: None, lambda _: None) for _ in range(3)]
        for now, connection in enumerate(made):
            connection.freed_at = now
            pool.put(origin, connection, now)
        assert pool.take(origin, 2) is made[2]
        assert pool.take(origin, 10.5) is made[1]
        assert made[0].closed
        assert pool.take(origin, 10.5) is None
    finally:
        loop.close()
