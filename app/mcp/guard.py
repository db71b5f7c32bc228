"""Between the MCP SDK and the network: makes every failure of a request the failure of that request only.

The SDK lets a refused connection, a broken body or an endless one end the whole session, and with it every call in
flight. This transport, one for each session over the pool they share, answers such a request with a JSON-RPC error
of its own, and bounds what a server may send: bytes, time, and the kinds of answers. A `Fault` travels inside that
error and is found again with `fault_in`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any, Literal
from weakref import WeakValueDictionary

import anyio
import httpx2
import msgspec
from msgspec import Struct

from app.mcp.challenge import read_challenge
from app.mcp.failure import CLOSED, INTERNAL, TIMED_OUT, UNREADABLE, McpFailure
from app.mcp.reach import Unreachable
from app.mcp.servers import Bearer
from app.mcp.settings import McpSettings

# Codes that a handler gives: with one of them a 400 answers the request; with any other it refuses the session.
_HANDLED = frozenset({-32700, -32601, -32602, -32603})
_ERROR_BODY = 65_536
_ABANDONED_SECS = 2.0


class Fault(Struct, frozen=True):
    """Why a request has no answer of the server. `lost`: the server no longer knows the session, and did nothing."""

    kind: Literal["http", "protocol"]
    code: int
    message: str
    lost: bool = False


class _Sent(Struct):
    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _Cancelled(Struct, rename="camel"):
    request_id: int | str


class _RpcError(Struct):
    code: int
    message: str
    # Which versions the server speaks, or which headers it misses: the SDK acts on it.
    data: msgspec.Raw = msgspec.Raw()


class _Received(Struct):
    id: int | str | None = None
    # Empty when absent.
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Failed(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _Leash:
    """A deadline over several awaits, which others can bring forward."""

    def __init__(self, seconds: float) -> None:
        self._deadline = anyio.current_time() + seconds
        self._scope: anyio.CancelScope | None = None

    def hold(self) -> anyio.CancelScope:
        """A scope for the next await; `cancelled_caught` tells that the time is up."""
        self._scope = anyio.CancelScope(deadline=self._deadline)
        return self._scope

    def shorten(self, seconds: float) -> None:
        """Leave at most `seconds` from now."""
        self._deadline = min(self._deadline, anyio.current_time() + seconds)
        if self._scope is not None:
            self._scope.deadline = self._deadline


class _Bounded(httpx2.AsyncByteStream):
    """A body of at most `cap` bytes, within `leash`. Beyond either it raises `SSEError`, which the SDK takes as the
    end of that one stream, with no attempt to resume it."""

    def __init__(self, body: httpx2.AsyncByteStream, cap: int | None, leash: _Leash) -> None:
        self._body = body
        self._cap = cap
        self._leash = leash

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._body)
        total = 0
        while True:
            chunk = None
            with self._leash.hold() as scope:
                chunk = await anext(chunks, None)
            if scope.cancelled_caught:
                raise httpx2.SSEError("the answer took too long")
            if chunk is None:
                return
            total += len(chunk)
            if self._cap is not None and total > self._cap:
                raise httpx2.SSEError(f"the answer is longer than {self._cap} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._body.aclose()


class Guard(httpx2.AsyncBaseTransport):
    """The transport of one session. `inner` is shared: closing this leaves it open."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, settings: McpSettings, bearer: Bearer | None = None) -> None:
        self._inner = inner
        self._settings = settings
        self._bearer = bearer
        # A server cannot guess it, so it cannot pass its own errors off as faults.
        self._seal = secrets.token_hex(8)
        self._lost = False
        self._unreachable: Fault | None = None
        # A leash lives as long as the answer it bounds.
        self._asked: WeakValueDictionary[int | str, _Leash] = WeakValueDictionary()

    def fault_in(self, data: Any) -> Fault | None:
        """The fault inside the `data` of a JSON-RPC error, if this guard put one there."""
        sealed = data.get(self._seal) if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return None if sealed is None else msgspec.convert(sealed, Fault)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request`. A POST never raises for what the network or the server does."""
        match request.method:
            case "POST":
                sent = msgspec.json.decode(request.content, type=_Sent)
                if sent.id is None or sent.method is None:
                    return await self._tell(request, sent)
                return await self._ask(request, sent.id, sent.method)
            case "DELETE":
                return await self._tell(request, None)
            case _:
                return await self._listen(request)

    async def aclose(self) -> None:
        """Nothing: the pool is not ours."""

    # ── requests ──────────────────────────────────────────────────────────────

    async def _ask(self, request: httpx2.Request, request_id: int | str, method: str) -> httpx2.Response:
        if self._unreachable is not None:
            return self._failed(request_id, self._unreachable)
        leash = _Leash(self._settings.call_max_secs + _ABANDONED_SECS)
        self._asked[request_id] = leash
        response: httpx2.Response | None = None
        try:
            response = await self._sent(request, leash)
            return await self._checked(request, request_id, response, leash)
        except _Failed as failed:
            fault = failed.fault
        except Unreachable as error:
            fault = self._unreachable = Fault("http", 403, f"may not be reached: {error}")
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            fault = Fault("http", 504 if isinstance(error, httpx2.TimeoutException) else 502, "cannot be reached")
            if method == "server/discover":
                # The SDK takes any failed probe for an old server and asks again; there is nobody to ask.
                self._unreachable = fault
        except (httpx2.TransportError, httpx2.InvalidURL, OSError, ValueError):
            # The last two: names that no resolver accepts.
            fault = Fault("http", 502, "closed the connection before its answer was complete")
        if response is not None:
            await response.aclose()
        return self._failed(request_id, fault)

    async def _sent(self, request: httpx2.Request, leash: _Leash) -> httpx2.Response:
        with leash.hold():
            return await self._authorized(request)
        raise _Failed(Fault("protocol", TIMED_OUT, "did not answer in time"))

    async def _authorized(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` with the token of the moment, where there is one; a refused one is renewed once."""
        if self._bearer is None:
            return await self._inner.handle_async_request(request)
        try:
            request.headers["authorization"] = f"Bearer {await self._bearer()}"
            response = await self._inner.handle_async_request(request)
            if response.status_code != 401:
                return response
            await response.aclose()
            request.headers["authorization"] = f"Bearer {await self._bearer(renew=True)}"
        except McpFailure as failure:
            raise _Failed(Fault("http", 401, f"cannot be used: {failure.error.message}")) from None
        return await self._inner.handle_async_request(request)

    async def _checked(
        self, request: httpx2.Request, request_id: int | str, response: httpx2.Response, leash: _Leash
    ) -> httpx2.Response:
        """`response` made safe for the SDK. Raises `_Failed`, `httpx2.TransportError`."""
        body = _body(response)
        kind = _plain_kind(response)
        if response.status_code >= 400:
            return await self._refused(request, request_id, response, leash)
        if 300 <= response.status_code < 400 or response.status_code == 202:
            return _with_body(response, httpx2.ByteStream(await _read(response, _ERROR_BODY, leash)))
        if kind == "text/event-stream":
            return _with_body(response, _Bounded(body, self._settings.max_body_bytes, leash))
        if kind != "application/json":
            raise _Failed(Fault("protocol", UNREADABLE, "answered with a content type that MCP does not know"))
        content = await _read(response, self._settings.max_body_bytes, leash)
        return _with_body(response, httpx2.ByteStream(_answer_to(request_id, content)))

    async def _refused(
        self, request: httpx2.Request, request_id: int | str, response: httpx2.Response, leash: _Leash
    ) -> httpx2.Response:
        status = response.status_code
        lacking = read_challenge(response).lacks if status == 403 else None
        error = _rpc_error(await _read(response, _ERROR_BODY, leash))
        code = error.code if error is not None else None
        in_session = "mcp-session-id" in request.headers
        if in_session and (status == 404 or (status == 400 and code not in _HANDLED)):
            self._lost = True
            raise _Failed(Fault("http", status, "no longer knows the session", lost=True))
        if lacking is not None:
            raise _Failed(Fault("http", status, await self._more_access(lacking)))
        if error is None:
            raise _Failed(Fault("http", status, f"answered with HTTP status {status}"))
        said = {"code": error.code, "message": error.message}
        return _json(_error_answer(request_id, msgspec.json.encode(said | _data_of(error))))

    async def _more_access(self, scope: str) -> str:
        wanted = f"needs more access than its credential has{f' (scope: {scope})' if scope else ''}"
        if self._bearer is not None and await self._bearer.lacks(scope):
            return f"{wanted}; sign in to it again"
        return wanted

    def _failed(self, request_id: int | str, fault: Fault) -> httpx2.Response:
        error = {"code": INTERNAL, "message": fault.message, "data": {self._seal: msgspec.to_builtins(fault)}}
        return _json(_error_answer(request_id, msgspec.json.encode(error)))

    # ── everything else ───────────────────────────────────────────────────────

    async def _tell(self, request: httpx2.Request, sent: _Sent | None) -> httpx2.Response:
        """Send what needs no answer: notifications, our answers to the server, the end of the session."""
        if sent is not None and sent.method == "notifications/cancelled":
            self._abandon(sent)
        if not self._lost:
            # The SDK sends one of these at a time: one that hangs would hold up every later request.
            leash = _Leash(self._settings.connect_timeout_secs)
            try:
                with leash.hold():
                    response = await self._authorized(request)
                    await _drained(response, leash)
            except (httpx2.TransportError, httpx2.InvalidURL, OSError, ValueError, _Failed):
                pass  # Whatever is wrong shows at the next request, where somebody waits for an answer.
        return httpx2.Response(202 if sent is not None else 204)

    def _abandon(self, sent: _Sent) -> None:
        """Nobody waits for this answer any more; servers that go on sending it are cut off."""
        cancelled = msgspec.json.decode(sent.params, type=_Cancelled)
        if (leash := self._asked.get(cancelled.request_id)) is not None:
            leash.shorten(_ABANDONED_SECS)

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        """The server's own stream, or the rest of an interrupted answer; the SDK expects these to raise."""
        try:
            response = await self._authorized(request)
        except _Failed as failed:
            raise httpx2.ReadError(failed.fault.message) from None
        resumed = "last-event-id" in request.headers
        leash = _Leash(self._settings.call_max_secs if resumed else float("inf"))
        try:
            body = _Bounded(_body(response), self._settings.max_body_bytes if resumed else None, leash)
        except _Failed as failed:
            await response.aclose()
            raise httpx2.ReadError(failed.fault.message) from None
        return _with_body(response, body)


def _body(response: httpx2.Response) -> httpx2.AsyncByteStream:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    if response.headers.get("content-encoding", "identity") != "identity":
        # We asked for none, and a small compressed body can hold an enormous one.
        raise _Failed(Fault("protocol", UNREADABLE, "answered with a compressed body that was not asked for"))
    return response.stream


def _plain_kind(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(response: httpx2.Response, cap: int, leash: _Leash) -> bytes:
    try:
        return b"".join([chunk async for chunk in _Bounded(_body(response), cap, leash)])
    except httpx2.SSEError as error:
        raise _Failed(Fault("protocol", CLOSED, f"sent too much or too slowly: {error}")) from None
    finally:
        await response.aclose()


async def _drained(response: httpx2.Response, leash: _Leash) -> None:
    """Read the little there is, so that the connection can be used again."""
    await _read(response, _ERROR_BODY, leash)


def _answer_to(request_id: int | str, content: bytes) -> bytes:
    """The JSON-RPC answer in `content`; an error without the request's id is given it. Raises `_Failed`."""
    try:
        received = msgspec.json.decode(content, type=_Received)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Failed(Fault("protocol", UNREADABLE, "answered with something that is not JSON-RPC")) from None
    if bytes(received.error) and received.id is None:
        return _error_answer(request_id, bytes(received.error))
    if str(received.id) != str(request_id) or not (bytes(received.error) or bytes(received.result)):
        raise _Failed(Fault("protocol", UNREADABLE, "answered something else than what it was asked"))
    return content


def _rpc_error(content: bytes) -> _RpcError | None:
    try:
        received = msgspec.json.decode(content, type=_Received)
        return msgspec.json.decode(received.error, type=_RpcError)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _data_of(error: _RpcError) -> dict[str, msgspec.Raw]:
    return {"data": error.data} if bytes(error.data) else {}


def _error_answer(request_id: int | str, error: bytes) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": msgspec.Raw(error)})


def _json(content: bytes) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=content)


def _with_body(response: httpx2.Response, body: httpx2.AsyncByteStream) -> httpx2.Response:
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-length"]
    return httpx2.Response(response.status_code, headers=headers, stream=body, extensions=response.extensions)
