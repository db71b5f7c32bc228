"""Waiting for an answer, on a clock that stands still while this process does.

On a busy machine, or after it was stopped, an event loop comes late to its own timers, and to answers that have long
been there. Such time says nothing about whoever is waited for, and is not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from math import ceil
from typing import Any, TypeVar

_T = TypeVar("_T")
_STEP_SECS = 0.25


async def patiently(asked: Coroutine[Any, Any, _T], secs: float) -> _T:
    """What `asked` returns or raises. Raises `TimeoutError` when it takes more than `secs` in which this process ran.

    The wait is made of short ones, each of which counts as long as it should have been, however long it was.
    """
    task = asyncio.create_task(asked)
    steps = ceil(secs / _STEP_SECS)
    try:
        for _ in range(steps):
            await asyncio.wait((task,), timeout=secs / steps)
            if task.done():
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
