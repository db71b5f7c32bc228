"""What commands that work with the settings begin with."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop

from app.cli.flags import given_flags
from app.settings.load import load
from app.settings.tree import Settings
from app.telemetry import logs


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The settings of a command line. The log is written as they say from here on."""
    settings = load(given_flags(parsed)).settings
    logs.configure(settings.server.log_level, as_json=settings.server.log_json)
    return settings


def run(work: Coroutine[Any, Any, None]) -> int:
    """Run to the end; the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
    return 0
