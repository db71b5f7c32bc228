"""Turns held back at the gateway until their worker can begin with them: the shortest first, but nobody waits for ever.

A turn's rank is its cost less what it has waited, `cost - aging * (now - arrived)`. All ranks fall at the same rate, so
their order never changes, and `cost + aging * arrived` ranks a turn once and for all: a heap will do. A turn can only
be overtaken by turns that arrive before `arrived + cost / aging`; after that, everyone comes behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class HoldQueue(Generic[T]):
    """Held turns of one worker. Costs and times in seconds.

    `secs` is what they cost together, and `rest` what is left of those that were begun.
    """

    def __init__(self, aging: float) -> None:
        self._aging = aging
        self._heap: list[tuple[float, int, float, bool, T]] = []
        self._gone: set[int] = set()
        self._serial = 0
        self.secs = self.rest = 0.0

    def __len__(self) -> int:
        """How many turns are held."""
        return len(self._heap) - len(self._gone)

    def push(self, turn: T, cost: float, arrived: float, *, begun: bool = False) -> int:
        """Hold the turn, or what is left of one that was `begun`; returns the number to `discard` it by."""
        self._serial += 1
        heapq.heappush(self._heap, (cost + self._aging * arrived, self._serial, cost, begun, turn))
        self._count(cost, begun)
        return self._serial

    def discard(self, serial: int) -> None:
        """The turn of that number is no longer wanted; one that is not held is ignored."""
        for _, held, cost, begun, _ in self._heap:
            if held == serial and serial not in self._gone:
                self._gone.add(serial)
                self._count(-cost, begun)

    def first(self, wanted: Callable[[T], bool]) -> T | None:
        """Of those that are `wanted` the turn whose time comes next; None when none is held."""
        held = [entry for entry in self._heap if entry[1] not in self._gone and wanted(entry[4])]
        return min(held)[4] if held else None

    def pop(self) -> T | None:
        """The turn whose time has come; None when nothing is held."""
        while self._heap:
            _, serial, cost, begun, turn = heapq.heappop(self._heap)
            if serial in self._gone:
                self._gone.discard(serial)
                continue
            self._count(-cost, begun)
            return turn
        return None

    def _count(self, cost: float, begun: bool) -> None:
        if not len(self):
            # Rounding must not leave an empty queue that seems to hold work.
            self.secs = self.rest = 0.0
        elif begun:
            self.rest = max(self.rest + cost, 0.0)
        else:
            self.secs = max(self.secs + cost, 0.0)
