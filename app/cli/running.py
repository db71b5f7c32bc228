"""What commands that work with the settings begin with."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from app.cli.flags import given_flags
from app.settings.load import load
from app.settings.tree import Settings
from app.telemetry import logs

_T = TypeVar("_T")


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


def result_of(parsed: argparse.Namespace, work: Callable[[Settings], Coroutine[Any, Any, _T]]) -> _T:
    """What comes of `work` on the settings of a command line. Nothing is logged but warnings."""
    return asyncio.run(work(load(given_flags(parsed)).settings))
