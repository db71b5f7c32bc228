"""Turns held back at the gateway until their worker can begin with them: the shortest first, but nobody waits for ever.

A turn's rank is its cost less what it has waited, `cost - aging * (now - arrived)`. All ranks fall at the same rate, so
their order never changes, and `cost + aging * arrived` ranks a turn once and for all: a heap will do. A turn can only
be overtaken by turns that arrive before `arrived + cost / aging`; after that, everyone comes behind it.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class HoldQueue(Generic[T]):
    """Held turns of one worker. Costs and times in seconds."""

    def __init__(self, aging: float) -> None:
        self._aging = aging
        self._heap: list[tuple[float, int, float, T]] = []
        self._gone: set[int] = set()
        self._serial = 0
        self.secs = 0.0

    def __len__(self) -> int:
        """How many turns are held."""
        return len(self._heap) - len(self._gone)

    def push(self, turn: T, cost: float, arrived: float) -> int:
        """Hold the turn; returns the number to `discard` it by."""
        self._serial += 1
        heapq.heappush(self._heap, (cost + self._aging * arrived, self._serial, cost, turn))
        self.secs += cost
        return self._serial

    def discard(self, serial: int) -> None:
        """The turn of that number is no longer wanted; one that is not held is ignored."""
        for _, held, cost, _ in self._heap:
            if held == serial and serial not in self._gone:
                self._gone.add(serial)
                self._spend(cost)

    def first(self) -> T | None:
        """The turn whose time comes next; None when nothing is held."""
        while self._heap and self._heap[0][1] in self._gone:
            self._gone.discard(heapq.heappop(self._heap)[1])
        return self._heap[0][3] if self._heap else None

    def pop(self) -> T | None:
        """The turn whose time has come; None when nothing is held."""
        while self._heap:
            _, serial, cost, turn = heapq.heappop(self._heap)
            if serial in self._gone:
                self._gone.discard(serial)
                continue
            self._spend(cost)
            return turn
        return None

    def _spend(self, cost: float) -> None:
        # Rounding must not leave an empty queue that seems to hold work.
        self.secs = max(self.secs - cost, 0.0) if len(self) else 0.0
