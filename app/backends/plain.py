"""The hot path's client: HTTP/1.1 without TLS over pooled connections.

What it leaves out is what a worker in the same network needs none of: redirects, proxies, cookies, compression. It
never asks for a second worker either; that is the fleet's business. Only one thing is tried again here: a request on
a connection that had been idle, when it closes without a byte of an answer. Then the server was closing it already.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from app.http1.connection import Connection, Exchange
from app.http1.pool import Origin, Pool, split
from app.http1.transport import Answer, Call, TransportError

_MAX_PLACES = 4096


class PlainTransport:
    """The `Transport` port for http URLs. Lives on the running event loop."""

    def __init__(self, *, keep_secs: float = 3.0, keep_most: int = 256) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(keep_secs, keep_most)
        self._connections: set[Connection] = set()
        self._places: dict[str, tuple[Origin, str]] = {}

    async def send(self, call: Call) -> Answer:
        """See `Transport`."""
        try:
            origin, target = self._places.get(call.url) or self._place(call.url)
            request = _request(call, origin, target)
        except ValueError as error:
            raise TransportError("unreachable", "The worker's URL or key cannot be used.") from error
        deadline = self._loop.time() + call.timeouts.total
        kept = self._pool.take(origin, self._loop.time())
        if kept is not None:
            exchange = kept.start(request, call.timeouts, deadline)
            try:
                return await _headed(exchange)
            except TransportError as error:
                if error.kind != "disconnected":
                    raise
        connection = await self._connect(origin, call, deadline)
        return await _headed(connection.start(request, call.timeouts, deadline))

    async def close(self) -> None:
        """See `Transport`."""
        for connection in tuple(self._connections):
            connection.abort()

    def _place(self, url: str) -> tuple[Origin, str]:
        """What the URL means; remembered, since workers have few. Raises `ValueError`."""
        if len(self._places) >= _MAX_PLACES:
            self._places.clear()
        place = self._places[url] = split(url)
        return place

    async def _connect(self, origin: Origin, call: Call, deadline: float) -> Connection:
        def free(connection: Connection) -> None:
            self._pool.put(origin, connection, self._loop.time())

        def gone(connection: Connection) -> None:
            self._connections.discard(connection)
            self._pool.forget(origin, connection)

        connection = Connection(self._loop, free, gone)
        self._connections.add(connection)
        due = self._loop.time() + call.timeouts.connect
        try:
            async with asyncio.timeout_at(min(due, deadline)):
                await self._loop.create_connection(lambda: connection, origin.host, origin.port)
        except BaseException as error:
            self._connections.discard(connection)
            connection.abort()
            if isinstance(error, TimeoutError):
                if deadline < due:
                    raise TransportError("total_timeout", call.timeouts.total_over) from error
                raise TransportError("connect_timeout", call.timeouts.connect_over) from error
            if isinstance(error, OSError):
                raise TransportError("unreachable", f"The worker cannot be reached: {why(error)}.") from error
            raise
        return connection


async def _headed(exchange: Exchange) -> Exchange:
    try:
        await exchange.head()
    except BaseException:
        exchange.release()
        raise
    return exchange


def _request(call: Call, origin: Origin, target: str) -> list[bytes]:
    """The request's bytes. Raises `ValueError` for a header that cannot be one."""
    lines = [f"{call.method} {target} HTTP/1.1", f"host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in call.headers.items()]
    if call.method == "POST":
        lines.append(f"content-length: {len(call.body)}")
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a header holds a line break")
    head = f"{text}\r\n\r\n".encode("latin-1")
    return [head, call.body] if call.body else [head]


def why(error: OSError) -> str:
    """What went wrong, without the host that the event loop puts in its messages."""
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if error.errno is None or error.errno not in errno.errorcode:
        return "no address of it answers"
    return os.strerror(error.errno).lower()
