"""Sockets and servers: bind or say why not, serve until asked to stop, end streams before the doors close."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

_log = logging.getLogger(__name__)


_KEEP_ALIVE_SECS = 120


class StartError(Exception):
    """The server cannot start. The message is for the operator and says what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket, not yet listening. Raises `StartError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise StartError(f"cannot listen on {host}:{port}: {reason}") from error
    return sock


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(sock: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Listener(uvicorn.Server):
    """uvicorn without its signal handling: who stops it sets `should_exit`. `started` is called once it listens.

    `max_frame` is in bytes: the most a WebSocket's message may have; 0 for a server without WebSockets.
    """

    def __init__(self, app: Any, close_secs: float, started: Callable[[], None], max_frame: int = 0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="websockets-sansio" if max_frame else "none",
                ws_max_size=max_frame,
                # Tokens do not compress in pieces, and whoever can choose some of them could guess at the others.
                ws_per_message_deflate=False,
                # Longer than clients keep theirs, or a request meets a connection that is just being closed.
                timeout_keep_alive=_KEEP_ALIVE_SECS,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(close_secs),
            )
        )
        self._on_started = started

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are not ours to catch."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._on_started()


class Stop:
    """The wish to stop: once politely, twice at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def ask(self) -> None:
        """Ask to stop; asking again insists."""
        (self.insisted if self.asked.is_set() else self.asked).set()

    @contextmanager
    def on_signals(self) -> Generator[None]:
        """SIGTERM and SIGINT ask."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def serve_until(
    stop: Stop,
    listener: Listener,
    sock: socket.socket,
    drain: Callable[[float], Awaitable[None]],
    drain_secs: float,
) -> None:
    """Serve until asked to stop, then drain with the doors still open, then close them.

    While draining, probes see 503 and new work is refused; `drain` gives running work its time and ends the rest.
    """
    serving = asyncio.create_task(listener.serve(sockets=[sock]))
    asked = asyncio.create_task(stop.asked.wait())
    try:
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            _log.info("shutting down: running responses have %g seconds", drain_secs)
            await _drain(stop, drain, drain_secs)
            listener.should_exit = True
        await serving
    finally:
        asked.cancel()
        if not serving.done():
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


async def _drain(stop: Stop, drain: Callable[[float], Awaitable[None]], seconds: float) -> None:
    patient = asyncio.ensure_future(drain(seconds))
    insisted = asyncio.create_task(stop.insisted.wait())
    await asyncio.wait({patient, insisted}, return_when=asyncio.FIRST_COMPLETED)
    insisted.cancel()
    if not patient.done():
        await drain(0)
    await patient
