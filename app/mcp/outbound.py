"""The HTTP client that goes only where `reach` lets it: vetted addresses, pooled connections, nothing else.

It speaks HTTP/1.1, over TLS where the URL says so, and does not follow, retry, decompress, or ask the environment for
proxies. Nothing is sent twice: what a tool call does may happen only once. So an idle connection is looked at before it
is used, and one that breaks later breaks the request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx2
from msgspec import Struct

from app.http1.connection import Connection, Exchange
from app.http1.pool import Origin, Pool
from app.http1.transport import Timeouts, TransportError
from app.mcp.reach import Reach, Resolve, system_resolve, vetted

_KEEP_SECS: Final = 30.0
# Whoever sets no timeout bounds the request by other means; timers want a number of seconds, and these never pass.
NEVER: Final = 1e9

_ERRORS: Final[dict[str, type[httpx2.TransportError]]] = {
    "unreachable": httpx2.ConnectError,
    "connect_timeout": httpx2.ConnectTimeout,
    "first_byte_timeout": httpx2.ReadTimeout,
    "idle_timeout": httpx2.ReadTimeout,
    "total_timeout": httpx2.ReadTimeout,
}

_VERSION: Final = {"http_version": b"HTTP/1.1"}


class Way(Struct, frozen=True):
    """Where a request goes: a URL, taken apart. `host` is what the header of that name says."""

    scheme: str
    origin: Origin
    target: str
    host: str


def way_to(url: httpx2.URL) -> Way:
    """The way to `url`, whether it may be gone or not."""
    origin = Origin(url.host, url.port or (443 if url.scheme == "https" else 80), "")
    return Way(url.scheme, origin, url.raw_path.decode("ascii"), url.netloc.decode("ascii"))


class Outgoing(Struct, frozen=True):
    """A request. The names of `headers` are lower case; those that HTTP itself needs may be left out."""

    method: str
    way: Way
    headers: Mapping[str, str]
    body: bytes = b""


class VettedTransport(httpx2.AsyncBaseTransport):
    """An HTTP transport that goes only where `reach` lets it. Connections of one are never used by another.

    `keep` is how many idle connections an origin may have; `tls` says which certificates are believed, the usual ones
    if left out.
    """

    def __init__(
        self,
        reach: Reach,
        keep: int = 256,
        resolve: Resolve = system_resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reach = reach
        self._resolve = resolve
        self._pools = {"http": Pool(_KEEP_SECS, keep), "https": Pool(_KEEP_SECS, keep)}
        self._connections: set[Connection] = set()
        self._tls = tls

    async def send(self, sent: Outgoing, timeouts: Timeouts, deadline: float) -> Exchange:
        """Send a request and await the head of its answer, to be released by whoever gets it.

        `deadline` is on the loop's clock. Raises `Unreachable` for where we do not go, `httpx2.TransportError`.
        """
        way, head = sent.way, _head(sent)
        if way.scheme not in self._pools:
            raise httpx2.UnsupportedProtocol(f"{way.scheme!r} is not spoken")
        connection = self._kept(way) or await self._connect(way, timeouts.connect)
        exchange = connection.start([head, sent.body], timeouts, deadline)
        try:
            await exchange.head()
        except BaseException as error:
            exchange.release()
            if isinstance(error, TransportError):
                raise broken_off(error) from None
            raise
        return exchange

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The same for httpx2's clients."""
        sent = Outgoing(request.method, way_to(request.url), dict(request.headers.items()), request.content)
        exchange = await self.send(sent, _timeouts(request), asyncio.get_running_loop().time() + NEVER)
        headers = [(name, value) for name, value in exchange.headers.items() if name != "set-cookie"]
        headers += [("set-cookie", cookie) for cookie in exchange.cookies]
        return httpx2.Response(exchange.status, headers=headers, stream=Body(exchange), extensions=_VERSION)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(len(pool) for pool in self._pools.values())

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in tuple(self._connections):
            connection.abort()

    def _kept(self, way: Way) -> Connection | None:
        """An idle connection that the server has not closed."""
        pool, now = self._pools[way.scheme], asyncio.get_running_loop().time()
        while (connection := pool.take(way.origin, now)) is not None:
            if not connection.is_stale():
                return connection
            connection.abort()
        return None

    async def _connect(self, way: Way, seconds: float) -> Connection:
        """A new connection to one of the addresses the origin has now, all of which have been judged."""
        scheme, origin = way.scheme, way.origin
        last: Exception | None = None
        try:
            async with asyncio.timeout(seconds):
                for address in await vetted(
                    self._reach, self._resolve, origin.host, origin.port, plain=scheme == "http"
                ):
                    try:
                        return await self._dial(scheme, origin, str(address))
                    except (OSError, ssl.CertificateError) as error:
                        last = error
        except TimeoutError:
            raise httpx2.ConnectTimeout("the connection took too long") from None
        except (OSError, ValueError) as error:
            raise httpx2.ConnectError(str(error)) from error
        raise httpx2.ConnectError("the name has no address" if last is None else str(last)) from last

    async def _dial(self, scheme: str, origin: Origin, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        pool = self._pools[scheme]

        def free(connection: Connection) -> None:
            pool.put(origin, connection, loop.time())

        def gone(connection: Connection) -> None:
            self._connections.discard(connection)
            pool.forget(origin, connection)

        connection = Connection(loop, free, gone)
        self._connections.add(connection)
        secured: dict[str, Any] = {"ssl": self._context(), "server_hostname": origin.host} if scheme == "https" else {}
        try:
            await loop.create_connection(lambda: connection, address, origin.port, **secured)
        except BaseException:
            self._connections.discard(connection)
            connection.abort()
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx2.create_ssl_context(trust_env=False)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class Body(httpx2.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._exchange.read():
                yield chunk
        except TransportError as error:
            raise broken_off(error) from None

    async def aclose(self) -> None:
        self._exchange.release()


def broken_off(error: TransportError) -> httpx2.TransportError:
    """The same error in httpx2's terms."""
    return _ERRORS.get(error.kind, httpx2.RemoteProtocolError)(error.message)


def _head(sent: Outgoing) -> bytes:
    headers = {"host": sent.way.host, **sent.headers}
    if sent.body or sent.method == "POST":
        headers["content-length"] = str(len(sent.body))
    lines = [f"{sent.method} {sent.way.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) - 1 or not head.isascii():
        raise httpx2.LocalProtocolError("a header holds what a header cannot hold")
    return f"{head}\r\n\r\n".encode("ascii")


def _timeouts(request: httpx2.Request) -> Timeouts:
    given = request.extensions.get("timeout", {})
    read = given.get("read") or NEVER
    return Timeouts(connect=given.get("connect") or NEVER, first_byte=read, idle=read, total=NEVER)
