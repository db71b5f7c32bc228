"""Waiting for what nobody announces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return once `true()`; `TimeoutError` when it takes longer than it does where the machine is busy elsewhere."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.005)
