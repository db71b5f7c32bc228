"""Running simulated workers as servers of their own: one, or a fleet on consecutive ports."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

import zmq
from msgspec import structs

from app.boot.listening import Listener, StartError, Stop, bind, serve_until, url_of
from app.boot.world import SystemClock
from app.simulator.events import Publisher
from app.simulator.script import ScriptError, load
from app.simulator.server import SimulatorApp
from app.simulator.settings import SimulatorSettings
from app.simulator.worker import SimulatedWorker

_log = logging.getLogger(__name__)
_CLOSE_SECS = 1.0
_PORT, _MOST_PORT = re.compile(r":(\d+)$"), 65535


def simulated_worker(settings: SimulatorSettings, publisher: Publisher | None = None) -> SimulatorApp:
    """A worker, ready to be served. Raises `StartError` for a script that cannot be used."""
    try:
        script = load(settings.script)
    except ScriptError as error:
        raise StartError(str(error)) from error
    publish = None if publisher is None else publisher.publish
    return SimulatorApp(SimulatedWorker(settings, script, SystemClock().now, publish))


async def simulate(settings: SimulatorSettings, stop: Stop, started: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until `stop` is asked for. `started` is told each worker's URL once it listens. Raises `StartError`."""
    check(settings)
    bound: list[tuple[SimulatorApp, socket.socket]] = []
    async with AsyncExitStack() as stack:
        for number in range(settings.fleet):
            one = numbered(settings, number)
            publisher = _publisher(one)
            if publisher is not None:
                stack.push_async_callback(publisher.close)
                stream, replay = publisher.addresses
                _log.info("its cache events are on %s", f"{stream},{replay}" if replay else stream)
            bound.append((simulated_worker(one, publisher), stack.enter_context(bind(one.host, one.port))))
        async with asyncio.TaskGroup() as group:
            for app, sock in bound:
                group.create_task(_serve(app, sock, stop, started))


def check(settings: SimulatorSettings) -> None:
    """Raises `StartError` for settings that only together cannot be."""
    if settings.kv_events is not None and settings.engine != "batch":
        raise StartError("--kv-events needs --engine batch: the other engine tells of nothing")
    if settings.kv_replay is not None and settings.kv_events is None:
        raise StartError("--kv-replay needs --kv-events")
    if settings.port and settings.port + settings.fleet - 1 > _MOST_PORT:
        raise StartError(f"there are no {settings.fleet} ports from {settings.port} on")
    for address in (settings.kv_events, settings.kv_replay):
        if address is None or settings.fleet == 1 or address.endswith(":*"):
            continue
        port = _PORT.search(address)
        if port is None or int(port[1]) + settings.fleet - 1 > _MOST_PORT:
            raise StartError(f"{address} has no ports for {settings.fleet} workers")


def numbered(settings: SimulatorSettings, number: int) -> SimulatorSettings:
    """The settings of a fleet's worker `number`: its ports are so much higher."""
    return structs.replace(
        settings,
        port=settings.port + number if settings.port else 0,
        kv_events=_moved(settings.kv_events, number),
        kv_replay=_moved(settings.kv_replay, number),
    )


async def _serve(app: SimulatorApp, sock: socket.socket, stop: Stop, started: Callable[[str], None]) -> None:
    def listening() -> None:
        _log.info("a simulated worker is on %s", url_of(sock))
        started(url_of(sock))

    await serve_until(stop, Listener(app, _CLOSE_SECS, listening), sock, _at_once, 0)


def _publisher(settings: SimulatorSettings) -> Publisher | None:
    if settings.kv_events is None:
        return None
    now = SystemClock().now
    try:
        return Publisher(settings.block_size, now, endpoint=settings.kv_events, replay=settings.kv_replay)
    except zmq.ZMQError as error:
        raise StartError(f"cannot publish events on {settings.kv_events}: {error}") from error


def _moved(address: str | None, number: int) -> str | None:
    return None if address is None else _PORT.sub(lambda port: f":{int(port[1]) + number}", address)


async def _at_once(_seconds: float) -> None:
    """A worker does not drain: what runs when it is told to stop has `_CLOSE_SECS` and is cut."""
