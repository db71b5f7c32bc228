"""`shepherd simulate`."""

from __future__ import annotations

import argparse

from app.boot.listening import Stop
from app.boot.simulate import simulate as run_simulator
from app.cli.running import run, settings_of


def simulate(parsed: argparse.Namespace) -> int:
    """Run a simulated worker until it is asked to stop."""
    settings = settings_of(parsed).simulator

    async def work() -> None:
        stop = Stop()
        with stop.on_signals():
            await run_simulator(settings, stop)

    return run(work())
