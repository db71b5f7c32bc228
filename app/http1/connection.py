"""One TCP connection to a server, over which exchanges go one after the other.

The event loop pushes bytes in; `httptools` (llhttp) takes HTTP apart; whoever reads the answer pulls the body out.
Between the two stands a buffer: when it is full the socket is no longer read, so that a slow reader slows the worker
and costs no memory.

Timeouts cost one timer per exchange, not one per read: the timer looks when it fires how long it has really been, and
goes back to sleep for the rest. Time in which nobody wanted bytes does not count as the worker's silence.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import cast

import httptools

from app.http1.transport import Breakage, Timeouts, TransportError

_HIGH_WATER = 256 * 1024
_MAX_HEAD = 64 * 1024
# How much of an answer, and for how long, is thrown away to keep the connection.
_MAX_DISCARD = 64 * 1024
_DISCARD_SECS = 1.0


class Connection(asyncio.Protocol):
    """A connection. `on_free` is told when it can take the next exchange, `on_gone` when it is closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[Connection], None],
        on_gone: Callable[[Connection], None],
    ) -> None:
        self.freed_at = 0.0
        self.closed = False
        self._loop = loop
        self._on_free = on_free
        self._on_gone = on_gone
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None

    def start(self, request: list[bytes], timeouts: Timeouts, deadline: float) -> Exchange:
        """Begin an exchange on a free connection. `deadline` is on the loop's clock."""
        assert self._transport is not None
        assert self._exchange is None
        exchange = self._exchange = Exchange(self, self._loop, timeouts, deadline)
        self._transport.writelines(request)
        return exchange

    def is_stale(self) -> bool:
        """Whether something has come over an idle connection, which can only be its end, even if nobody was told yet.

        Who may not ask twice asks here before it asks once.
        """
        if self.closed or self._transport is None:
            return True
        waiting = select.poll()
        waiting.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    def abort(self) -> None:
        """Close now; the worker sees the connection reset."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def ended(self, *, reusable: bool) -> None:
        """The exchange is over and nobody reads it any more."""
        self._exchange = None
        transport = self._transport
        if not reusable or transport is None or self.closed or transport.is_closing():
            self.abort()
        elif transport.get_write_buffer_size() > 0:
            # The worker answered before it had read the request.
            self.abort()
        else:
            self.freed_at = self._loop.time()
            self._on_free(self)

    def pause(self) -> None:
        """Stop reading the socket."""
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read the socket again."""
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # ── the event loop's side ─────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            # Nobody asked: a worker that closes an idle connection with a 408, or one that is confused.
            self.abort()
        else:
            self._exchange.received(data)

    def eof_received(self) -> bool:
        return False  # closes the transport, and so ends in connection_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._exchange is not None:
            self._exchange.lost(exc)
        self._on_gone(self)


class Exchange:
    """A request that was written and the response to it: the `Answer` port, and the parser's callbacks."""

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, timeouts: Timeouts, deadline: float
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.cookies: list[str] = []  # the one header that may come twice and be meant twice
        self.silent = True  # not a byte has come
        self._connection = connection
        self._loop = loop
        self._timeouts = timeouts
        self._deadline = deadline
        self._parser = httptools.HttpResponseParser(self)
        self._head_size = 0
        self._has_head = False
        self._body: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._reusable = False
        self._released = False
        self._discarded = 0
        self._error: TransportError | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._take: Callable[[bytes], bool] | None = None  # who hears of the body while they wait for it
        self._heard_at = loop.time()
        self._has_body = False
        self._timer = loop.call_at(self._due(), self._tick)

    # ── the reader's side ─────────────────────────────────────────────────────

    async def head(self) -> None:
        """Return once status and headers are there. Raises `TransportError`."""
        while not self._has_head:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        """See `Answer`."""
        while not self._body:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            await self._wait()
        return self._drain()

    async def hear(self, take: Callable[[bytes], bool]) -> None:
        """See `Answer`."""
        while True:
            if self._body:
                if not take(self._drain()):
                    return
            elif self._error is not None:
                raise self._error
            elif self._complete:
                take(b"")
                return
            elif await self._wait(take):
                return

    def release(self, *, ending: bool = False) -> None:
        """See `Answer`."""
        if self._released:
            return
        self._released = True
        if self._complete or self._error is not None or self._paused or not ending:
            self._finish()
        else:
            self._body.clear()
            self._timer.cancel()
            self._timer = self._loop.call_later(_DISCARD_SECS, self._finish)

    def _drain(self) -> bytes:
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._heard_at = self._loop.time()
            self._connection.resume()
        return data

    async def _wait(self, take: Callable[[bytes], bool] | None = None) -> bool:
        """Wait for news; whether `take`, who hears of the body meanwhile, wants no more of it."""
        self._take, self._waiter = take, self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._take = self._waiter = None

    def _wake(self, enough: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(enough)

    def _tell(self) -> None:
        """Somebody waits, or comes by later, for the part of the body that is here. Who hears is not woken for it."""
        if self._take is None or self._waiter is None or self._waiter.done():
            self._wake()
            return
        try:
            wanted = self._take(self._drain())
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            self._waiter.set_exception(error)
        else:
            if not wanted:
                self._wake(enough=True)

    def _finish(self) -> None:
        self._timer.cancel()
        self._connection.ended(reusable=self._complete and self._reusable and self._error is None)

    # ── time ──────────────────────────────────────────────────────────────────

    def _due(self) -> float:
        patience = self._timeouts.idle if self._has_body else self._timeouts.first_byte
        return min(self._heard_at + patience, self._deadline)

    def _tick(self) -> None:
        now = self._loop.time()
        if now >= self._deadline:
            self._fail("total_timeout", self._timeouts.total_over)
            return
        if self._buffered or self._paused:
            self._heard_at = now
        due = self._due()
        if now < due:
            self._timer = self._loop.call_at(due, self._tick)
        elif self._has_body:
            self._fail("idle_timeout", f"The worker stopped sending for {self._timeouts.idle:g} seconds.")
        else:
            self._fail("first_byte_timeout", f"The worker did not answer in {self._timeouts.first_byte:g} seconds.")

    # ── the connection's side ─────────────────────────────────────────────────

    def received(self, data: bytes) -> None:
        """Bytes came."""
        self.silent = False
        if self._error is None:
            self._parse(data)
        if self._body:
            self._tell()
        if self._released:
            if self._complete or self._discarded > _MAX_DISCARD:
                self._finish()
        elif self._buffered > _HIGH_WATER and not self._paused and not self._complete:
            self._paused = True
            self._connection.pause()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("nonsense", "The worker changed the protocol.")
        except httptools.HttpParserError as error:
            self._reusable = False  # if the answer was whole, something follows it
            self._fail("nonsense", f"The worker's answer is not HTTP: {error.__context__ or error}.")
        if self._has_body:
            self._heard_at = self._loop.time()
        elif not self._has_head:
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self._fail("nonsense", "The worker's answer has too large a head.")

    def lost(self, exc: Exception | None) -> None:
        """The connection closed."""
        if not self._complete and self._error is None:
            if self._has_head and exc is None and not self._is_delimited():
                self._complete = True
            elif self.silent:
                self._error = TransportError("disconnected", "The worker closed the connection without an answer.")
            else:
                self._error = TransportError("cut", "The worker's answer stopped before it was complete.")
        self._reusable = False
        if self._released:
            self._finish()
        self._wake()

    def _fail(self, kind: Breakage, message: str) -> None:
        if self._complete or self._error is not None:
            return
        self._error = TransportError(kind, message)
        self._timer.cancel()
        self._connection.abort()
        self._wake()

    def _is_delimited(self) -> bool:
        return "content-length" in self.headers or self.headers.get("transfer-encoding", "").lower().endswith("chunked")

    # ── the parser's callbacks ────────────────────────────────────────────────

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD:
            raise ValueError("the head is too large")
        if self._has_head:
            return  # a trailer
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = text
        if key == "set-cookie":
            self.cookies.append(text)

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            # 100 Continue and its like come before the answer.
            self.headers.clear()
            return
        self._has_head = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        if self._released:
            self._discarded += len(body)
            return
        if not self._has_body:
            self._has_body = True
            self._heard_at = self._loop.time()
            if self._timeouts.idle < self._timeouts.first_byte:
                # Otherwise the timer looks early enough.
                self._timer.cancel()
                self._timer = self._loop.call_at(self._due(), self._tick)
        self._body.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        if not self._has_head or self._complete:
            return
        self._complete = True
        self._reusable = self._parser.should_keep_alive()
        self._timer.cancel()
        self._wake()

    def on_message_begin(self) -> None:
        if self._complete:
            self._reusable = False  # a second answer, which nobody asked for
