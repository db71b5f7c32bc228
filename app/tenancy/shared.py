"""Look-ups shared by those who want the same thing at the same time.

Where many requests come at once, and what was remembered has just become too old, each of them would ask the database
the same question; on a busy machine they would wait for one another until none is answered in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class Shared(Generic[_K, _T]):
    """One look-up for each key at a time."""

    def __init__(self) -> None:
        self._asking: dict[_K, asyncio.Task[_T]] = {}

    async def of(self, key: _K, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What `ask` finds, or what the look-up for the same key finds that is under way. Raises what that raises."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._over(key, done))
        # One who does not wait any more must not take the answer from the others.
        return await asyncio.shield(task)

    def _over(self, key: _K, done: asyncio.Task[_T]) -> None:
        del self._asking[key]
        if not done.cancelled():
            # Nobody may be left who wants to know how it went.
            done.exception()
