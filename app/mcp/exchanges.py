"""Streamable HTTP as exchanges: a request is a POST that is awaited where it is asked, and nothing more.

The SDK's own transport hands a request through four streams and two tasks before it reaches the wire, which costs more
than all else that a call costs here. What stays the SDK's: which protocol version is spoken, what each version wants in
headers and `_meta`, and whether what came is valid. `Exchanges` is its `Dispatcher`.

A call that nobody awaits any more is closed; a server of an older version is told as well, since for those a closed
connection means nothing. Answers that come as events may hold progress, other notifications and requests of the server;
one that breaks off is resumed where the server numbers its events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import anyio
import httpx2
from anyio.abc import TaskGroup, TaskStatus
from mcp import MCPError, types
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest, ProgressFnT, run_notify_intercept
from msgspec import Struct, structs

from app.mcp.failure import CLOSED, INTERNAL
from app.mcp.guard import Events, Guard, Reply
from app.mcp.outbound import Outgoing, way_to
from app.mcp.rpc import closed, decoded, encoded, request_of, result_in

_log = logging.getLogger(__name__)

_SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"
_LAST_EVENT: Final = "last-event-id"
_MODERN: Final = frozenset({"2026-07-28"})
_MOST_REDIRECTS: Final = 5
_ATTEMPTS: Final = 2
_RETRY_SECS: Final = 1.0
_SHORTEST_RETRY_SECS: Final = 0.25
_LONGEST_RETRY_SECS: Final = 60
_MOST_REPLIES: Final = 16
_LISTEN_SECS: Final = 0.25


class _Inbound(Struct, frozen=True):
    """A request of the server's, as the SDK's session wants to see it: by its id."""

    request_id: int | str | None


class _Cut(Exception):
    """A stream of events ended without the answer. `last` is the last event's id, `retry` in seconds."""

    def __init__(self, last: str | None, retry: float) -> None:
        super().__init__("the stream ended")
        self.last = last
        self.retry = retry


@asynccontextmanager
async def exchanges(url: str, headers: Mapping[str, str], guard: Guard) -> AsyncGenerator[Exchanges, None]:
    """Exchanges with the server at `url`, with these headers on each request; their names are lower case. Afterwards it
    is told that the session is over."""
    made = Exchanges(url, headers, guard)
    try:
        yield made
    finally:
        await made.end()


class Exchanges:
    """The SDK's `Dispatcher` over Streamable HTTP. Any task may use it while `run` runs."""

    def __init__(self, url: str, headers: Mapping[str, str], guard: Guard) -> None:
        self._url = httpx2.URL(url)
        self._way = way_to(self._url)
        self._guard = guard
        self._headers = {
            **headers,
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        self._cookies = httpx2.Cookies()
        self._session: str | None = None
        self._version = ""
        self._last_id = 0
        self._open: set[asyncio.Timeout] = set()
        self._replies = asyncio.Semaphore(_MOST_REPLIES)
        self._progress: dict[int | str, ProgressFnT] = {}
        self._listens = asyncio.Event()
        self._tasks: TaskGroup | None = None
        self._on_request: OnRequest | None = None
        self._on_notify: OnNotify | None = None
        self._intercept: OnNotifyIntercept | None = None

    @property
    def known(self) -> bool:
        """Whether the server has given us something to be known again by."""
        return self._session is not None or bool(self._cookies)

    # ── what the SDK's session uses ───────────────────────────────────────────

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be there for what the server says by itself, until cancelled. Then whatever is open is closed."""
        self._on_request, self._on_notify, self._intercept = on_request, on_notify, on_notify_intercept
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            for limit in self._open:
                with suppress(RuntimeError):  # its time is up anyway
                    limit.reschedule(0)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask, and wait for the result. Raises `MCPError` for anything else that comes, or when all is closed."""
        options = opts or CallOptions()
        self._last_id += 1
        request_id = self._last_id
        if (progressed := options.get("on_progress")) is not None:
            self._progress[request_id] = progressed
        if method == "initialize":
            self._version = ""
        version = options.get("headers", {}).get(_VERSION, self._version)
        limit = asyncio.timeout(options.get("timeout"))
        try:
            async with limit:
                self._open.add(limit)
                if self._tasks is None:
                    raise closed()
                message = request_of(request_id, method, params, told=progressed is not None)
                return await self._ask(method, message, options.get("headers"))
        except TimeoutError:
            if self._tasks is None:
                raise closed() from None
            raise MCPError(types.REQUEST_TIMEOUT, f"Request {method!r} timed out") from None
        except asyncio.CancelledError:
            if options.get("cancel_on_abandon", True) and version not in _MODERN and self._tasks is not None:
                self._tasks.start_soon(self.notify, "notifications/cancelled", {"requestId": request_id})
            raise
        finally:
            self._open.discard(limit)
            self._progress.pop(request_id, None)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Tell the server something. What becomes of it is not said."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        opening = self._tasks if method == "notifications/initialized" and self._session is not None else None
        if opening is not None:
            opening.start_soon(self._listen)
        await self._tell(message, (opts or {}).get("headers"))
        if opening is not None:
            # What a server asks during the first call may come on a stream of its own, and is lost where there is none
            # yet. One that does not answer before it has something to say is not waited for.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LISTEN_SECS):
                    await self._listens.wait()

    async def end(self) -> None:
        """The session is over."""
        if self._session is not None:
            await self._guard.tell(self._outgoing("DELETE", None))

    # ── asking ────────────────────────────────────────────────────────────────

    async def _ask(self, method: str, message: dict[str, Any], headers: Mapping[str, str] | None) -> dict[str, Any]:
        if headers is not None and _VERSION in headers:
            self._version = headers[_VERSION]
        sent = self._outgoing("POST", headers, encoded(message))
        reply = await self._answered(sent, partial(self._guard.ask, method, message["id"]))
        if method == "initialize" and reply.status < 300:
            self._session = reply.headers.get(_SESSION)
        if reply.answer is not None:
            return result_in(reply.answer)
        return result_in(await self._streamed(reply))

    async def _streamed(self, reply: Reply) -> dict[str, Any]:
        """The answer among the events of a reply. Raises `MCPError`."""
        if reply.status == 202:
            raise MCPError(types.INVALID_REQUEST, "server answered a request with 202 Accepted")
        if reply.events is None:
            raise MCPError(types.INVALID_REQUEST, "server redirected to where requests are not sent")
        try:
            return await self._told(reply.events)
        except _Cut as cut:
            return await self._resumed(cut)

    async def _told(self, events: Events) -> dict[str, Any]:
        """The answer among events; what else is told is passed on. Raises `_Cut`, `MCPError`."""
        last, retry = None, _RETRY_SECS
        try:
            async for event in events:
                last = event.id or last
                retry = retry if event.retry is None else min(event.retry, _LONGEST_RETRY_SECS * 1000) / 1000
                if event.event == "message" and event.data:
                    message = decoded(event.data)
                    if "method" not in message:
                        # The end is on its way, and the connection good for the next one.
                        events.end()
                        return message
                    await self._heard(message)
        except httpx2.SSEError as error:
            raise MCPError(CLOSED, f"the stream of events failed: {error}") from None
        except (httpx2.TransportError, OSError) as error:
            _log.debug("a stream of events broke off: %s", type(error).__name__)
        finally:
            events.close()
        raise _Cut(last, retry)

    async def _resumed(self, cut: _Cut) -> dict[str, Any]:
        """The rest of a stream that was cut, if the server keeps it. Raises `MCPError`."""
        for _ in range(_ATTEMPTS):
            if cut.last is None:
                break
            await asyncio.sleep(cut.retry)
            try:
                return await self._told(await self._get(cut.last))
            except _Cut as again:
                cut = _Cut(again.last or cut.last, again.retry)
            except (httpx2.TransportError, OSError) as error:
                _log.debug("a stream of events was not resumed: %s", type(error).__name__)
        raise MCPError(CLOSED, "the stream of events ended without an answer")

    # ── what the server says by itself ────────────────────────────────────────

    async def _listen(self) -> None:
        """Hear what the server says outside of answers, where it wants to say something."""
        last: str | None = None
        left = _ATTEMPTS
        while self._session is not None and left:
            retry = _RETRY_SECS
            try:
                try:
                    events = await self._get(last)
                finally:
                    self._listens.set()
                await self._told(events)
            except _Cut as cut:
                last, retry, left = cut.last or last, cut.retry, _ATTEMPTS
            except (MCPError, httpx2.TransportError, OSError):
                left -= 1
            await asyncio.sleep(max(retry, _SHORTEST_RETRY_SECS))

    async def _get(self, last: str | None) -> Events:
        """A stream of the server's own, from after its event `last`. Raises `MCPError`, `httpx2.TransportError`."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        sent = self._outgoing("GET", headers if last is None else {**headers, _LAST_EVENT: last})
        reply = await self._answered(sent, partial(self._guard.listen, resumed=last is not None))
        kind = reply.headers.get("content-type", "").lower()
        if reply.status != 200 or reply.events is None or not kind.startswith("text/event-stream"):
            reply.close()
            raise MCPError(CLOSED, "the server has no stream of its own")
        return reply.events

    async def _heard(self, message: dict[str, Any]) -> None:
        """A request or a notification of the server's."""
        method, params = str(message["method"]), message.get("params")
        if self._tasks is None:
            return
        if "id" in message:
            # A server that asks faster than it takes answers is not read on.
            await self._replies.acquire()
            self._tasks.start_soon(self._reply, message["id"], method, params)
            return
        if method == "notifications/progress":
            await self._progressed(params)
        elif not run_notify_intercept(self._intercept, method, params) and self._on_notify is not None:
            self._tasks.start_soon(self._contained, method, params)

    async def _progressed(self, params: Any) -> None:
        match params:
            case {"progressToken": str() | int() as token, "progress": int() | float() as done}:
                told = self._progress.get(token)
                total, text = params.get("total"), params.get("message")
                if told is not None:
                    await told(_number(done) or 0.0, _number(total), text if isinstance(text, str) else None)
            case _:
                pass

    async def _contained(self, method: str, params: Any) -> None:
        assert self._on_notify is not None
        try:
            await self._on_notify(cast("Any", _Inbound(None)), method, params)
        except Exception:  # noqa: BLE001 - what the SDK makes of a server's words must not end the session
            _log.warning("a notification of an MCP server could not be taken in")

    async def _reply(self, request_id: int | str, method: str, params: Any) -> None:
        assert self._on_request is not None
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        try:
            answer["result"] = await self._on_request(cast("Any", _Inbound(request_id)), method, params)
        except MCPError as error:
            answer["error"] = {"code": error.code, "message": error.message}
        except Exception:  # noqa: BLE001 - as above
            _log.warning("a request of an MCP server could not be answered")
            answer["error"] = {"code": INTERNAL, "message": "Internal error"}
        try:
            await self._tell(answer, None)
        finally:
            self._replies.release()

    # ── the wire ──────────────────────────────────────────────────────────────

    async def _tell(self, message: dict[str, Any], headers: Mapping[str, str] | None) -> None:
        await self._guard.tell(self._outgoing("POST", headers, encoded(message)))

    def _outgoing(self, method: str, headers: Mapping[str, str] | None, body: bytes = b"") -> Outgoing:
        """A request with our headers, then the session's, then its own."""
        sent = dict(self._headers)
        if self._session is not None:
            sent[_SESSION] = self._session
        if self._version:
            sent[_VERSION] = self._version
        if headers:
            sent.update(headers)
        return Outgoing(method, self._way, sent, body)

    async def _answered(self, sent: Outgoing, send: Callable[[Outgoing], Awaitable[Reply]]) -> Reply:
        """Send, also to where the server says it has moved, as long as that is itself."""
        url, left = self._url, _MOST_REDIRECTS
        while True:
            reply = await send(self._with_cookies(sent, url) if self._cookies else sent)
            if reply.cookies:
                self._keep_cookies(sent.method, url, reply)
            moved = _moved(url, reply)
            if moved is None or not left:
                return reply
            reply.close()
            url, left = moved, left - 1
            sent = structs.replace(sent, way=way_to(url))

    def _with_cookies(self, sent: Outgoing, url: httpx2.URL) -> Outgoing:
        request = httpx2.Request(sent.method, url)
        self._cookies.set_cookie_header(request)
        cookie = request.headers.get("cookie")
        return sent if cookie is None else structs.replace(sent, headers={**sent.headers, "cookie": cookie})

    def _keep_cookies(self, method: str, url: httpx2.URL, reply: Reply) -> None:
        response = httpx2.Response(reply.status, headers=[("set-cookie", cookie) for cookie in reply.cookies])
        response.request = httpx2.Request(method, url)
        self._cookies.extract_cookies(response)


def _number(value: object) -> float | None:
    """A number of a server's; None for one that is none, or more than a number holds."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def _moved(here: httpx2.URL, reply: Reply) -> httpx2.URL | None:
    """Where to send the request instead, when the server says so and it is the same server."""
    location = reply.headers.get("location")
    if location is None or reply.status not in (307, 308):
        return None
    try:
        there = here.join(location)
    except httpx2.InvalidURL:
        return None
    same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
    safer = here.host == there.host and (here.scheme, there.scheme, here.port, there.port) == (
        "http",
        "https",
        None,
        None,
    )
    return there if (same or safer) and not there.userinfo else None
