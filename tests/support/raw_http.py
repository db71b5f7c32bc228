"""A server made of a socket: every connection does exactly what the test says, byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from app.http1.transport import Call, Timeouts

OK = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """A connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = requests

    async def request(self) -> bytes:
        """The next request, head and body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        body = await self._reader.readexactly(int(length.group(1))) if length else b""
        self._requests.append(head + body)
        return head + body

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own as far as that can be had."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    def close(self) -> None:
        """Close politely."""
        self._writer.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Return once the client has closed."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass


class RawServer:
    """What the test needs to know: where it is, who came, what they wanted."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []
        self.faults: list[BaseException] = []


@asynccontextmanager
async def raw_server(
    behave: Callable[[Peer], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncGenerator[RawServer]:
    """A server whose every connection is `behave`. What goes wrong in there fails the test."""
    made = RawServer()
    running: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        made.connections += 1
        try:
            await behave(Peer(reader, writer, made.requests))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        except BaseException as fault:  # noqa: BLE001 - told to the test
            made.faults.append(fault)
        finally:
            writer.close()
            running.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()[:2]
    made.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert made.faults == []


def answering(*pieces: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answers every request of a connection with `pieces`, and keeps it open."""

    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return behave


def sized(body: bytes, *headers: bytes, status: bytes = OK) -> bytes:
    """A response with a content-length."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return status + lines + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """Pieces in chunked coding."""
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return coded + (b"0\r\n\r\n" if end else b"")


STREAM_HEAD = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def sse(*chunks: Any) -> bytes:
    """Events whose data are these, as JSON unless they are strings."""
    return b"".join(b"data: %s\n\n" % (c.encode() if isinstance(c, str) else json.dumps(c).encode()) for c in chunks)


def timeouts(**given: float) -> Timeouts:
    """A minute each, unless given."""
    return Timeouts(**{"connect": 60.0, "first_byte": 60.0, "idle": 60.0, "total": 60.0, **given})


def get(url: str, **given: float) -> Call:
    return Call(method="GET", url=f"{url}/x", headers={}, timeouts=timeouts(**given))


def post(url: str, body: bytes = b"{}", **given: float) -> Call:
    headers = {"content-type": "application/json"}
    return Call(method="POST", url=f"{url}/x", headers=headers, body=body, timeouts=timeouts(**given))
