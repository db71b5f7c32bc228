"""Waiting for a worker's next event, but not for ever: a worker that stands still mid-sentence, or that is known to be
down, is not waited for.

One timer serves a whole stream, however many events it has: it is set again only when it rings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.turn.events import TurnEvent


class Stalled(Exception):
    """The event did not come in time."""


class Watch:
    """Watches one stream. `stall_secs` bounds the wait between two events, but not the wait for the first one."""

    def __init__(self, stall_secs: float) -> None:
        self.spoken = False
        self._limit = stall_secs
        self._loop = asyncio.get_running_loop()
        self._hurried: float | None = None
        self._since = self._loop.time()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rang = False

    async def next(self, source: AsyncIterator[TurnEvent]) -> TurnEvent | None:
        """The next event, or None at the end. Raises `Stalled`."""
        task = self._task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        self._since = self._loop.time()
        if self._timer is None:
            self._arm()
        try:
            event = await anext(source, None)
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task as well; then it is theirs.
            if self._rang and task.uncancel() <= cancels:
                raise Stalled from None
            raise
        finally:
            self._task = None
        self.spoken = True
        return event

    def hurry(self, secs: float) -> None:
        """From now on wait no longer than `secs`, be it for the first event."""
        self._hurried = secs
        self._arm()

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _allowed(self) -> float | None:
        limit = self._limit if self.spoken else None
        if self._hurried is None:
            return limit
        return self._hurried if limit is None else min(limit, self._hurried)

    def _arm(self) -> None:
        self.close()
        allowed = self._allowed()
        if allowed is not None:
            self._timer = self._loop.call_at(max(self._since + allowed, self._loop.time()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        allowed = self._allowed()
        if self._task is None or allowed is None:
            return
        if self._loop.time() >= self._since + allowed:
            self._rang = True
            self._task.cancel()
        else:
            self._arm()
