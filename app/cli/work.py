"""The commands that do something: serve, demo, simulate, migrate."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop

from app.boot import database
from app.boot.demo import demo as run_demo
from app.boot.listening import Stop
from app.boot.serve import serve as serve_gateway
from app.boot.simulate import simulate as run_simulator
from app.cli.flags import given_flags
from app.settings.load import load
from app.settings.tree import Settings
from app.telemetry import logs


def serve(parsed: argparse.Namespace) -> int:
    """Run the gateway until it is asked to stop."""
    settings = _settings(parsed)

    async def run() -> None:
        stop = Stop()
        with stop.on_signals():
            await serve_gateway(settings, stop)

    return _run(run())


def demo(parsed: argparse.Namespace) -> int:
    """Run the gateway with a simulated worker and a demo MCP server, and say what to try."""
    settings = _settings(parsed)

    async def run() -> None:
        stop = Stop()
        with stop.on_signals():
            await run_demo(settings, stop, lambda text: print(text, flush=True))

    return _run(run())


def simulate(parsed: argparse.Namespace) -> int:
    """Run a simulated worker until it is asked to stop."""
    settings = _settings(parsed).simulator

    async def run() -> None:
        stop = Stop()
        with stop.on_signals():
            await run_simulator(settings, stop)

    return _run(run())


def migrate(parsed: argparse.Namespace) -> int:
    """Migrate the database, or only check that tables and migrations agree."""
    settings = _settings(parsed)
    work = database.check_migrations if parsed.check else database.migrate_database

    async def run() -> None:
        print(await work(settings))

    return _run(run())


def _settings(parsed: argparse.Namespace) -> Settings:
    settings = load(given_flags(parsed)).settings
    logs.configure(settings.server.log_level, as_json=settings.server.log_json)
    return settings


def _run(work: Coroutine[Any, Any, None]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
    return 0
