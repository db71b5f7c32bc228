"""`shepherd serve` and `shepherd demo`."""

from __future__ import annotations

import argparse

from app.boot.demo import demo as run_demo
from app.boot.listening import Stop
from app.boot.serve import serve as serve_gateway
from app.cli.running import run, settings_of


def serve(parsed: argparse.Namespace) -> int:
    """Run the gateway until it is asked to stop."""
    settings = settings_of(parsed)

    async def work() -> None:
        stop = Stop()
        with stop.on_signals():
            await serve_gateway(settings, stop)

    return run(work())


def demo(parsed: argparse.Namespace) -> int:
    """Run the gateway with a simulated worker and a demo MCP server, and say what to try."""
    settings = settings_of(parsed)

    async def work() -> None:
        stop = Stop()
        with stop.on_signals():
            await run_demo(settings, stop, lambda text: print(text, flush=True))

    return run(work())
