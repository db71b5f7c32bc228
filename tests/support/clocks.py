"""Clocks turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from typing import Final

_STEP_SECS: Final = 0.25
_TURNS: Final = 6


class HandClock:
    """The `Clock` port. `at` is what it shows."""

    def __init__(self, at: float = 1_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


class _Ahead:
    """What an event loop takes for the time."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.secs = 0.0

    def __call__(self) -> float:
        return self._time() + self.secs


def put_forward(seconds: float) -> None:
    """Put the running event loop's clock forward: what was to wait so long is over at once. Not that of uvloop.

    So limits can be long enough for a machine that is busy elsewhere, and tests of them need not wait. To the loop it
    looks as if its process had stood still.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop.time, _Ahead):
        loop.time = _Ahead(loop.time)
    loop.time.secs += seconds


async def pass_time(seconds: float) -> None:
    """Put the running event loop's clock forward in steps so small that no timer rings late."""
    steps = ceil(seconds / _STEP_SECS)
    for _ in range(steps):
        put_forward(seconds / steps)
        # Turns of the loop for those whom timers wake, and whom these wake, to set their next ones.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
