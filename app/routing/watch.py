"""Waiting for a worker's next event, but not for ever: a worker that stands still mid-sentence, or that is known to be
down, is not waited for.

One timer serves a whole stream, however many events it has: it is set again only when it rings. One that rings late
because this process stood still has not let the worker have its time: events may be there that nobody has read yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.turn.events import Delta, Hear, TurnEvent, TurnFailed

# A worker that is down but still sends gets this long between two events before its turns are ended.
_DOWN_STALL_SECS = 5.0
# A timer that is later than this was not rung by a loop that ran all the time. So long is waited once more then.
_LATE_SECS = 0.5


class Stalled(Exception):
    """The event did not come in time."""


class Streams:
    """The streams of one worker that are being read. `heard` counts what came over all of them, failures apart."""

    def __init__(self) -> None:
        self.heard = 0
        self._watches: set[Watch] = set()

    def __len__(self) -> int:
        return len(self._watches)

    def watch(self, stall_secs: float) -> Watch:
        """A watch over one more of them, until it is closed."""
        watch = Watch(stall_secs, self)
        self._watches.add(watch)
        return watch

    def discard(self, watch: Watch) -> None:
        """That stream is not read any more."""
        self._watches.discard(watch)

    def down(self) -> None:
        """The worker is down: who has heard nothing yet goes elsewhere, who has is ended soon, unless the worker goes
        on after all."""
        for watch in self._watches:
            watch.hurry(_DOWN_STALL_SECS if watch.spoken else 0.0)


class Watch:
    """Watches one stream. `stall_secs` bounds the wait between two events, but not the wait for the first one."""

    def __init__(self, stall_secs: float, streams: Streams) -> None:
        self.spoken = False
        self._streams = streams
        self._limit = stall_secs
        self._loop = asyncio.get_running_loop()
        self._hurried: float | None = None
        self._since = self._loop.time()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rang = self._spared = False

    async def next(self, source: AsyncIterator[TurnEvent]) -> TurnEvent | None:
        """The next event, or None at the end. Raises `Stalled`."""
        task = self._task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        self._wait_anew()
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
        if event is not None and not isinstance(event, TurnFailed):
            self._streams.heard += 1
        return event

    def hearing(self, hear: Hear) -> Hear:
        """What is told to `hear` while the next event is waited for, but not the first of all, on which depends where
        the turn is made."""

        def told(event: Delta) -> bool:
            if not self.spoken or not hear(event):
                return False
            self._wait_anew()
            self._streams.heard += 1
            return True

        return told

    def hurry(self, secs: float) -> None:
        """From now on wait no longer than `secs`, be it for the first event."""
        self._hurried = secs
        self._arm()

    def close(self) -> None:
        """Nothing is waited for any more."""
        self._streams.discard(self)
        self._disarm()

    def _wait_anew(self) -> None:
        self._since = self._loop.time()
        self._spared = False

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _allowed(self) -> float | None:
        limit = self._limit if self.spoken else None
        if self._hurried is None:
            return limit
        return self._hurried if limit is None else min(limit, self._hurried)

    def _arm(self) -> None:
        self._disarm()
        allowed = self._allowed()
        if allowed is not None:
            due = max(self._since + allowed, self._loop.time())
            self._timer = self._loop.call_at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        self._timer = None
        allowed = self._allowed()
        if self._task is None or allowed is None:
            return
        now = self._loop.time()
        if now - due > _LATE_SECS and not self._spared:
            self._spared = True
            self._since = now - allowed + _LATE_SECS
        if now >= self._since + allowed:
            self._rang = True
            self._task.cancel()
        else:
            self._arm()
