"""Running a simulated worker as a server of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

from app.boot.listening import Listener, StartError, Stop, bind, serve_until, url_of
from app.boot.world import SystemClock
from app.simulator.script import ScriptError, load
from app.simulator.server import SimulatorApp
from app.simulator.settings import SimulatorSettings
from app.simulator.worker import SimulatedWorker

_log = logging.getLogger(__name__)
_CLOSE_SECS = 1.0


def simulated_worker(settings: SimulatorSettings) -> SimulatorApp:
    """A worker, ready to be served. Raises `StartError` for a script that cannot be used."""
    try:
        script = load(settings.script)
    except ScriptError as error:
        raise StartError(str(error)) from error
    return SimulatorApp(SimulatedWorker(settings, script, SystemClock().now))


async def simulate(settings: SimulatorSettings, stop: Stop, started: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until `stop` is asked for. `started` is told the worker's URL once it listens. Raises `StartError`."""
    app = simulated_worker(settings)
    with bind(settings.host, settings.port) as sock:

        def listening() -> None:
            _log.info("simulating %s on %s", ", ".join(settings.models), url_of(sock))
            started(url_of(sock))

        await serve_until(stop, Listener(app, _CLOSE_SECS, listening), sock, _at_once, 0)


async def _at_once(_seconds: float) -> None:
    """A worker does not drain: what runs when it is told to stop has `_CLOSE_SECS` and is cut."""
