"""The outermost layer: every request has an id, is counted, is timed, and is logged when that is asked for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Histogram

from app.telemetry.logs import request_id
from app.telemetry.metrics import Metrics

_log = logging.getLogger("shepherd.access")

_ACCEPTABLE = re.compile(rb"[\x21-\x7e]{1,128}\Z")


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
        """Answer one request; other kinds of scope pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # pyright: ignore[reportArgumentType]
            return
        rid = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        if _ACCEPTABLE.match(rid) is None:
            rid = self._new_id().encode()
        header = (b"x-request-id", rid)
        token = request_id.set(rid.decode())
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
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """`status` is 0 when the client was gone before there was one."""
        said = cast("dict[str, Any]", scope)
        route: str = said.get("path_template") or "unmatched"
        method: str = said["method"]
        # A label for every method a stranger can think of would be a leak.
        known = method if method in _METHODS else "other"
        key = (known, route, status)
        if key not in self._instruments:
            requests, durations = self._metrics.http_requests, self._metrics.http_duration
            self._instruments[key] = (requests.labels(known, route, str(status)), durations.labels(route))
        count, duration = self._instruments[key]
        count.inc()
        duration.observe(seconds)
        if self._access_log:
            line = {"method": method, "path": said["path"], "status": status, "ms": round(seconds * 1000, 1)}
            _log.info("request", extra=line)


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
