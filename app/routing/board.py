"""The loads of all workers as columns of numbers, a row for each worker.

Every worker is looked at for every turn. As columns they fill a few lines of the processor's cache, which a long prompt
that was just read has emptied; as objects they would fill hundreds. `Load` writes them, `field` reads them.

Two columns are kept so that they need not be touched when time passes: work is written down as the moment when it will
be done, and what fades (`busy`) in a unit that grows as fast as it fades.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from math import exp, inf
from operator import itemgetter
from typing import Any

from msgspec import Struct

from app.routing.policies import Field
from app.routing.rates import Rate, quickest

# How far back "lately" goes: about as long as a turn is being written.
_BUSY_SECS = 10.0
# The unit of `busy` is set anew before it grows out of a float.
_UNIT_SECS = 50 * _BUSY_SECS


class Roster(Struct, frozen=True):
    """Workers in the order they are asked about in. `place` is each one's, by row; `pick` takes their cells."""

    ids: Sequence[str]
    place: Mapping[int, int]
    pick: Callable[[Sequence[Any]], Sequence[Any]]


def _picker(rows: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    start, stop = (rows[0], rows[0] + len(rows)) if rows else (0, 0)
    # Where all workers serve a model, which is mostly so, their cells need no looking up one by one.
    return itemgetter(slice(start, stop)) if list(rows) == list(range(start, stop)) else itemgetter(*rows)


_NOBODY = Roster((), {}, _picker(()))


class Board:
    """Rows are small numbers that the caller gives out. Times are in seconds on the caller's clock.

    `turns` in flight, `queued` seconds of reading behind what was sent, `rest` of turns that are read in parts. `free`
    is when what was sent will have been read, `due` when the first of it should have been. None of the `rates` is
    quicker than `quickest`, which is for the one who sets them to say.
    """

    def __init__(self) -> None:
        self.turns, self.queued, self.memory = array("d"), array("d"), array("d")
        self.rest = array("d")
        self.free, self.due = array("d"), array("d")
        self.rates: list[Rate] = []
        self.quickest = Rate()
        self._busy = array("d")
        self._unit_at = 0.0
        self._roster = _NOBODY

    def clear(self, row: int, rate: Rate) -> None:
        """The row is a new worker's, which has nothing to do."""
        while len(self.rates) <= row:
            for column in (self.turns, self.queued, self.rest, self.memory, self.free, self.due, self._busy):
                column.append(0.0)
            self.rates.append(rate)
        self.turns[row] = self.queued[row] = self.rest[row] = self.memory[row] = self._busy[row] = 0.0
        self.free[row], self.due[row], self.rates[row] = -inf, inf, rate
        self.quickest = quickest((self.quickest, rate))
        self._roster = _NOBODY

    def read(self, row: int, secs: float, now: float) -> None:
        """The worker will spend so many seconds reading."""
        if now - self._unit_at > _UNIT_SECS:
            fade = self._fade(now)
            self._busy = array("d", [busy * fade for busy in self._busy])
            self._unit_at = now
        self._busy[row] += secs / _BUSY_SECS / self._fade(now)

    def busy(self, row: int, now: float) -> float:
        """The share of its time that the worker lately spent reading; may exceed 1."""
        return self._busy[row] * self._fade(now)

    def _fade(self, now: float) -> float:
        return exp((self._unit_at - now) / _BUSY_SECS)

    def roster(self, ids: Sequence[str], row: Callable[[str], int]) -> Roster:
        """The workers of these ids; `row` tells where each is. Mostly they are the same ones as last time."""
        if ids is not self._roster.ids:
            wanted = [row(each) for each in ids]
            self._roster = Roster(ids, {row: place for place, row in enumerate(wanted)}, _picker(wanted))
        return self._roster

    def field(self, roster: Roster, cached: Sequence[int], regrets: Sequence[float], now: float) -> Field:
        """The workers as they are now, which hold `cached` tokens of a prompt each; `regrets` is by row."""
        pick, fade = roster.pick, self._fade(now)
        backlog = [free - now if free > now else 0.0 for free in pick(self.free)]
        dues = pick(self.due)
        if min(dues) < now:
            backlog = [secs + max(now - due, 0.0) for secs, due in zip(backlog, dues, strict=True)]
        return Field(
            ids=roster.ids,
            inflight=pick(self.turns),
            backlog_secs=backlog,
            held_secs=pick(self.queued),
            rest_secs=pick(self.rest),
            cached=cached,
            rates=pick(self.rates),
            quickest=self.quickest,
            busy=[busy * fade for busy in pick(self._busy)],
            memory=pick(self.memory),
            regret=pick(regrets),
        )
