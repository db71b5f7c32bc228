"""Running the gateway: sockets first, then the rooms, then the doors; and the same backwards."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import cast

from litestar.types import ASGIApp
from prometheus_client import make_asgi_app  # pyright: ignore[reportUnknownVariableType]

from app.api.gateway import create_app
from app.boot.listening import Listener, Stop, bind, serve_until, url_of
from app.boot.rooms import opened
from app.mcp.telemetry import quiet_sdk
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)


async def serve(settings: Settings, stop: Stop, started: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until `stop` is asked for, and drain. `started` is told the gateway's URL once it listens.

    Raises `StartError` when a port, the database or the data directory cannot be used.
    """
    server = settings.server
    warn(settings)
    quiet_sdk()
    with ExitStack() as sockets:
        sock = sockets.enter_context(bind(server.host, server.port))
        scraped = server.prometheus_port
        metrics_sock = None if scraped is None else sockets.enter_context(bind(server.prometheus_host, scraped))
        async with opened(settings) as rooms, _metrics_server(rooms.services.metrics, metrics_sock):

            def listening() -> None:
                # What is there now stays. Looked through by the collector again and again, it would hold up everybody
                # for a tenth of a second at a time.
                gc.freeze()
                _log.info("listening on %s", url_of(sock))
                started(url_of(sock))

            listener = Listener(create_app(rooms.services), server.close_secs, listening, server.max_payload_size)
            await serve_until(stop, listener, sock, rooms.drain, settings.responses.drain_secs)


@asynccontextmanager
async def _metrics_server(metrics: Metrics, sock: socket.socket | None) -> AsyncGenerator[None]:
    """`/metrics` on its own port, for as long as the block lasts."""
    if sock is None:
        yield
        return
    app = cast("ASGIApp", make_asgi_app(metrics.registry))
    listener = Listener(app, 0, lambda: _log.info("metrics on %s/metrics", url_of(sock)))
    serving = asyncio.create_task(listener.serve(sockets=[sock]))
    try:
        yield
    finally:
        listener.should_exit = True
        await serving


def warn(settings: Settings) -> None:
    """Say what is allowed but probably not meant."""
    routing = settings.routing
    if not routing.worker_urls and routing.discover_file is None and routing.discover_dns is None:
        _log.warning("no workers: name some with --worker-urls")
