"""Between the MCP client and the network: makes every failure of a request the failure of that request only.

A refused connection, a broken body or an endless one must not end the whole session, and with it every call in flight.
So whatever goes wrong with a request becomes the `Faulted` of that request, an error like those that servers answer
with; and what a server may send is bounded: bytes, time, and the kinds of answers. There is one guard for each session,
over the connections they share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Literal

import httpx2
import msgspec
from mcp import MCPError
from msgspec import Struct, structs

from app.http1.connection import Exchange
from app.http1.transport import Timeouts, TransportError
from app.mcp.challenge import read_challenge
from app.mcp.failure import CLOSED, INTERNAL, TIMED_OUT, UNREADABLE, McpFailure
from app.mcp.outbound import NEVER, Body, Outgoing, VettedTransport, broken_off
from app.mcp.reach import Unreachable
from app.mcp.rpc import as_error
from app.mcp.servers import Bearer
from app.mcp.settings import McpSettings

# Codes that a handler gives: with one of them a 400 answers the request; with any other it refuses the session.
_HANDLED = frozenset({-32700, -32601, -32602, -32603})
_ERROR_BODY = 65_536
# A call has a limit of its own, which is to come first.
_SPARE_SECS = 2.0
# A stream of events asks whose answer it is, for its errors, of which we make our own.
_NOBODY = httpx2.Request("GET", "http://localhost")


class Fault(Struct, frozen=True):
    """Why a request has no answer of the server. `lost`: the server no longer knows the session, and did nothing."""

    kind: Literal["http", "protocol"]
    code: int
    message: str
    lost: bool = False


class Faulted(MCPError):
    """A request has no answer of the server: a server cannot say this."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(INTERNAL, fault.message)
        self.fault = fault


class Reply(Struct, frozen=True):
    """What came of a request: an `answer` in JSON, or `events`, or no more than a head."""

    status: int
    headers: Mapping[str, str]
    cookies: Sequence[str]
    answer: dict[str, Any] | None = None
    events: Events | None = None

    def close(self) -> None:
        """Nothing more is wanted."""
        if self.events is not None:
            self.events.close()


class Events:
    """The events of an answer, to be read once. Raises `httpx2.SSEError` for one of more than `cap` bytes, of which one
    event may be `largest`, and for one that takes too long; `httpx2.TransportError` for one that breaks off."""

    def __init__(self, exchange: Exchange, cap: int | None, largest: int) -> None:
        self._exchange = exchange
        self._cap = cap
        self._largest = largest

    def __aiter__(self) -> AsyncIterator[httpx2.ServerSentEvent]:
        kind = {"content-type": self._exchange.headers.get("content-type", "")}
        response = httpx2.Response(200, headers=kind, stream=_Bounded(self._exchange, self._cap))
        response.request = _NOBODY
        return aiter(httpx2.EventSource(response, max_event_size=self._largest))

    def end(self) -> None:
        """All that matters has been read, and the rest is about to end by itself."""
        self._exchange.release(ending=True)

    def close(self) -> None:
        """No more is wanted."""
        self._exchange.release()


class _Bounded(Body):
    def __init__(self, exchange: Exchange, cap: int | None) -> None:
        super().__init__(exchange)
        self._cap = cap

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        total = 0
        try:
            while chunk := await self._exchange.read():
                total += len(chunk)
                if self._cap is not None and total > self._cap:
                    raise httpx2.SSEError(f"the answer is longer than {self._cap} bytes")
                yield chunk
        except TransportError as error:
            if error.kind == "total_timeout":
                raise httpx2.SSEError("the answer took too long") from None
            raise broken_off(error) from None


class Guard:
    """Makes the requests of one session. `network` is shared."""

    def __init__(self, network: VettedTransport, settings: McpSettings, bearer: Bearer | None = None) -> None:
        self._network = network
        self._settings = settings
        self._bearer = bearer
        # How long is bounded by the deadline of the whole, which knows a long answer from a silent server.
        self._timeouts = Timeouts(connect=settings.connect_timeout_secs, first_byte=NEVER, idle=NEVER, total=NEVER)
        self._loop = asyncio.get_running_loop()
        self._lost = False
        self._unreachable: Fault | None = None

    async def ask(self, method: str, request_id: int, sent: Outgoing) -> Reply:
        """Send a request of this JSON-RPC method and id. Raises `Faulted`, and the `MCPError` that the server says."""
        if self._unreachable is not None:
            raise Faulted(self._unreachable)
        deadline = self._loop.time() + self._settings.call_max_secs + _SPARE_SECS
        try:
            exchange = await self._send(sent, deadline)
            goes_on = False
            try:
                reply = await self._checked(sent, request_id, exchange)
                goes_on = reply.events is not None
            finally:
                if not goes_on:
                    exchange.release()
        except (TransportError, httpx2.TransportError, OSError, ValueError) as error:
            # The last two: names that no resolver accepts.
            raise Faulted(self._fault(method, error)) from None
        return reply

    async def tell(self, sent: Outgoing) -> None:
        """Send what needs no answer: notifications, our answers to the server, the end of the session."""
        if self._lost:
            return
        # One that hangs would hold up every later one.
        deadline = self._loop.time() + self._settings.connect_timeout_secs
        try:
            exchange = await self._send(sent, deadline)
            try:
                # What little there is is read, so that the connection can be used again.
                await _read(exchange, _ERROR_BODY)
            finally:
                exchange.release()
        except (TransportError, httpx2.TransportError, OSError, ValueError, Faulted):
            pass  # Whatever is wrong shows at the next request, where somebody waits for an answer.

    async def listen(self, sent: Outgoing, *, resumed: bool) -> Reply:
        """The server's own stream, or the rest of an interrupted answer. Raises `httpx2.TransportError`, `OSError`."""
        deadline = self._loop.time() + (self._settings.call_max_secs if resumed else NEVER)
        try:
            exchange = await self._send(sent, deadline)
        except Faulted as failed:
            raise httpx2.ReadError(failed.fault.message) from None
        if _is_packed(exchange):
            exchange.release()
            raise httpx2.ReadError(_PACKED.message)
        events = Events(exchange, self._settings.max_body_bytes if resumed else None, self._settings.max_body_bytes)
        return Reply(exchange.status, exchange.headers, exchange.cookies, events=events)

    # ── sending ───────────────────────────────────────────────────────────────

    async def _send(self, sent: Outgoing, deadline: float) -> Exchange:
        """Send `sent` with the token of the moment, where there is one; a refused one is renewed once."""
        if self._bearer is None:
            return await self._network.send(sent, self._timeouts, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                exchange = await self._network.send(_signed(sent, await self._bearer()), self._timeouts, deadline)
                if exchange.status != 401:
                    return exchange
                exchange.release()
                renewed = _signed(sent, await self._bearer(renew=True))
                return await self._network.send(renewed, self._timeouts, deadline)
        except TimeoutError:
            raise httpx2.ReadTimeout("there was no token in time") from None
        except McpFailure as failure:
            raise Faulted(Fault("http", 401, f"cannot be used: {failure.error.message}")) from None

    def _fault(self, method: str, error: Exception) -> Fault:
        if isinstance(error, Unreachable):
            fault = self._unreachable = Fault("http", 403, f"may not be reached: {error}")
        elif isinstance(error, httpx2.ReadTimeout):
            fault = Fault("protocol", TIMED_OUT, "did not answer in time")
        elif isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            fault = Fault("http", 504 if isinstance(error, httpx2.TimeoutException) else 502, "cannot be reached")
            if method == "server/discover":
                # The SDK takes any failed probe for an old server and asks again; there is nobody to ask.
                self._unreachable = fault
        else:
            fault = Fault("http", 502, "closed the connection before its answer was complete")
        return fault

    # ── judging ───────────────────────────────────────────────────────────────

    async def _checked(self, sent: Outgoing, request_id: int, exchange: Exchange) -> Reply:
        """What came, if that is what may come. Raises `MCPError`, `TransportError`."""
        status, headers, cookies = exchange.status, exchange.headers, exchange.cookies
        if _is_packed(exchange):
            # We asked for none, and a small compressed body can hold an enormous one.
            raise Faulted(_PACKED)
        if status >= 400:
            raise await self._refused(sent, exchange)
        if 300 <= status < 400 or status == 202:
            await _read(exchange, _ERROR_BODY)
            return Reply(status, headers, cookies)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        largest = self._settings.max_body_bytes
        if kind == "text/event-stream":
            return Reply(status, headers, cookies, events=Events(exchange, largest, largest))
        if kind != "application/json":
            raise Faulted(Fault("protocol", UNREADABLE, "answered with a content type that MCP does not know"))
        return Reply(status, headers, cookies, answer=_answer_to(request_id, await _read(exchange, largest)))

    async def _refused(self, sent: Outgoing, exchange: Exchange) -> MCPError:
        status = exchange.status
        lacking = read_challenge(exchange.headers.get("www-authenticate", "")).lacks if status == 403 else None
        error = _error_in(await _read(exchange, _ERROR_BODY))
        code = error.code if error is not None else None
        if "mcp-session-id" in sent.headers and (status == 404 or (status == 400 and code not in _HANDLED)):
            self._lost = True
            return Faulted(Fault("http", status, "no longer knows the session", lost=True))
        if lacking is not None:
            return Faulted(Fault("http", status, await self._more_access(lacking)))
        return error or Faulted(Fault("http", status, f"answered with HTTP status {status}"))

    async def _more_access(self, scope: str) -> str:
        wanted = f"needs more access than its credential has{f' (scope: {scope})' if scope else ''}"
        if self._bearer is not None and await self._bearer.lacks(scope):
            return f"{wanted}; sign in to it again"
        return wanted


_PACKED = Fault("protocol", UNREADABLE, "answered with a compressed body that was not asked for")


def _is_packed(exchange: Exchange) -> bool:
    return exchange.headers.get("content-encoding", "identity") != "identity"


def _signed(sent: Outgoing, token: str) -> Outgoing:
    return structs.replace(sent, headers={**sent.headers, "authorization": f"Bearer {token}"})


async def _read(exchange: Exchange, cap: int) -> bytes:
    """The body of at most `cap` bytes. Raises `Faulted`, `TransportError`."""
    chunks: list[bytes] = []
    total = 0
    try:
        while chunk := await exchange.read():
            total += len(chunk)
            if total > cap:
                raise Faulted(Fault("protocol", CLOSED, f"sent too much: the answer is longer than {cap} bytes"))
            chunks.append(chunk)
    except TransportError as error:
        if error.kind == "total_timeout":
            raise Faulted(Fault("protocol", CLOSED, "sent too slowly: the answer took too long")) from None
        raise
    return b"".join(chunks)


def _answer_to(request_id: int, content: bytes) -> dict[str, Any]:
    """The JSON-RPC answer in `content`; an error need not have the request's id. Raises `Faulted`."""
    try:
        answer = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Faulted(Fault("protocol", UNREADABLE, "answered with something that is not JSON-RPC")) from None
    answered = answer.get("id")
    if "error" in answer and answered is None:
        return answer
    if str(answered) != str(request_id) or not ("error" in answer or "result" in answer):
        raise Faulted(Fault("protocol", UNREADABLE, "answered something else than what it was asked"))
    return answer


def _error_in(content: bytes) -> MCPError | None:
    try:
        answer = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    match answer.get("error"):
        case {"code": int(), "message": str()} as error:
            return as_error(error)
        case _:
            return None
