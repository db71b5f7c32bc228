"""The outermost layer: every request has an id, is counted, is timed, and is logged when that is asked for.

The access log says who did what kind of thing and how it went: the route as a template, never the path with its ids,
never a query, a header or anything that was said. A WebSocket is one line, when it has ended.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Histogram

from app.api.principal import known_tenant
from app.telemetry.logs import request_id
from app.telemetry.metrics import Metrics

_log = logging.getLogger("shepherd.access")

_ACCEPTABLE = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

# As the client's side of the upgrade sees it.
OPENED, REFUSED = 101, 403


class Edge:
    """An ASGI app around another. A client's own `x-request-id` is kept when it is printable and short."""

    def __init__(self, app: ASGIApp, metrics: Metrics, new_id: Callable[[], str], *, access_log: bool = False) -> None:
        self._app = app
        self._metrics = metrics
        self._new_id = new_id
        self._access_log = access_log
        # Finding an instrument by its labels costs more than using it; routes, methods and statuses are few.
        self._instruments: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one socket until it ends; other kinds of scope pass through."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)  # pyright: ignore[reportArgumentType]
            return
        rid = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        if _ACCEPTABLE.match(rid) is None:
            rid = self._new_id().encode()
        token = request_id.set(rid.decode())
        try:
            await (self._http if scope["type"] == "http" else self._socket)(scope, receive, send, rid)
        finally:
            request_id.reset(token)

    async def _http(self, scope: Scope, receive: Receive, send: Send, rid: bytes) -> None:
        header = (b"x-request-id", rid)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], header]
            await send(message)

        began = perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._record(scope, status, perf_counter() - began)

    async def _socket(self, scope: Scope, receive: Receive, send: Send, rid: bytes) -> None:
        header = (b"x-request-id", rid)
        opened, status = False, 0
        code: int | None = None

        async def receive_and_hear(*_: object) -> Any:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") if code is None else code
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal opened, status, code
            if message["type"] == "websocket.accept":
                opened, status = True, OPENED
                message["headers"] = [*message.get("headers", ()), header]
                self._metrics.sockets_open.inc()
            elif message["type"] == "websocket.close":
                status, code = status or REFUSED, message.get("code")
            await send(message)

        began = perf_counter()
        try:
            await self._app(scope, receive_and_hear, send_with_id)
        finally:
            if opened:
                self._metrics.sockets_open.dec()
            self._metrics.sockets.labels(str(status)).inc()
            self._tell("websocket", "GET", scope, status, perf_counter() - began, code=code)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """`status` is 0 when the client was gone before there was one."""
        method = _method(cast("dict[str, Any]", scope)["method"])
        key = (method, _route(scope), status)
        if key not in self._instruments:
            requests, durations = self._metrics.http_requests, self._metrics.http_duration
            self._instruments[key] = (requests.labels(*key[:2], str(status)), durations.labels(key[1]))
        count, duration = self._instruments[key]
        count.inc()
        duration.observe(seconds)
        self._tell("request", method, scope, status, seconds)

    def _tell(self, what: str, method: str, scope: Scope, status: int, seconds: float, **more: object) -> None:
        if not self._access_log:
            return
        line = {"method": method, "route": _route(scope), "status": status, "ms": round(seconds * 1000, 1)}
        if (tenant := known_tenant(scope)) is not None:
            line["tenant"] = tenant
        _log.info(what, extra=line | more)


def _route(scope: Scope) -> str:
    return cast("dict[str, Any]", scope).get("path_template") or "unmatched"


def _method(method: str) -> str:
    # A label for every method a stranger can think of would be a leak.
    return method if method in _METHODS else "other"
