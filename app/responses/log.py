"""The events of a run in this process: appended once they are durable, read by any number of followers.

A follower that comes late reads what was and then what comes; one that leaves disturbs nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeAlias

from app.dialects.openai_responses.encode import Event

# Where a log goes on that ends here, from this number on; None when it does not.
Further: TypeAlias = Callable[[int], AsyncIterator[Sequence[Event]] | None]


class EventLog:
    """An append-only list of events, numbered from 0 without gaps, that ends when it is closed."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def told(self) -> Sequence[Event]:
        """All events there are now."""
        return tuple(self._events)

    @property
    def last(self) -> int:
        """The number of the last of them; -1: there is none."""
        return len(self._events) - 1

    def append(self, events: Iterable[Event]) -> None:
        """Add events and wake the followers."""
        self._events.extend(events)
        self._wake()

    def close(self) -> None:
        """No more events will come."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def follow(self, after: int = -1, further: Further | None = None) -> AsyncIterator[Sequence[Event]]:
        """Batches of the events whose sequence number is greater than `after`, until the log is closed and read; and
        then what there is `further` to read."""
        position, loop = after + 1, asyncio.get_running_loop()
        while True:
            batch = self._events[position:]
            if batch:
                position += len(batch)
                yield batch
            elif self._closed:
                break
            else:
                changed = loop.create_future()
                self._waiting.append(changed)
                await changed
        rest = None if further is None else further(position - 1)
        if rest is not None:
            async for batch in rest:
                yield batch
