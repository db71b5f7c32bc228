"""How much of what each worker's cache gives up is asked for again soon.

A cache that is full gives up a block for each one that is read. Where the prompts in use fit into its memory, those are
of no use to anybody any more. Where they do not, somebody comes back for them, and reading one prompt costs reading
another one again (P. J. Denning, "Thrashing: its causes and prevention", 1968).

The blocks that were given up are remembered for some minutes, a sample of them, as ghosts (N. Megiddo and D. S. Modha,
"ARC: A Self-Tuning, Low Overhead Replacement Cache", 2003). What a lost or restarted worker held was not given up.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

# How long a block is remembered, once to twice: about as long as a tool or a person takes. It has to be known soon that
# a cache was relieved, else turns avoid all workers one after the other.
_WINDOW_SECS = 90.0
# One key in so many stands for the others.
_SAMPLE = 16
# A worker that gave up less than this share of what it can hold is not short of memory, though all of it be asked for.
_LEAST_GIVEN = 0.1
# More are not remembered, which takes about 100 MB.
_MOST_GHOSTS = 1_000_000


class Count:
    """How often something happened at each worker, in this time and the one before (`lately`), and in this one."""

    def __init__(self) -> None:
        self.lately, self._now = array("d"), array("d")

    def begin(self, slot: int) -> None:
        """Nothing happened at the worker."""
        more = array("d", [0.0]) * (slot + 1 - len(self._now))
        self.lately, self._now = self.lately + more, self._now + more
        self.lately[slot] = self._now[slot] = 0.0

    def add(self, slot: int, count: int) -> None:
        """It happened so many times."""
        self.lately[slot] += count
        self._now[slot] += count

    def turn(self) -> None:
        """A new time begins."""
        self.lately, self._now = self._now, array("d", [0.0]) * len(self._now)


class Regrets:
    """Keys are of blocks, times in seconds on the caller's clock. A `slot` is a worker's.

    `shares` says by slot which share of what the worker gave up lately was asked for again; or of a tenth of what it
    can hold, where it gave up less.
    """

    def __init__(self) -> None:
        self.shares = array("d")
        # Who gave each up last: in this time and in the one before.
        self._ghosts, self._before = dict[int, int](), dict[int, int]()
        self._given, self._missed = Count(), Count()
        # By slot, the least number that counts as given.
        self._least = array("d")
        self._since = 0.0

    def begin(self, slot: int) -> None:
        """The slot is a new worker's, which gave nothing up."""
        self._given.begin(slot)
        self._missed.begin(slot)
        self._least.extend([0.0] * (slot + 1 - len(self._least)))
        self._reckon()

    def gave_up(self, slot: int, keys: Sequence[int], room: float) -> None:
        """The worker, which can hold `room` blocks, gave these up for others."""
        sample = _sample(keys)
        if sample and len(self._ghosts) < _MOST_GHOSTS:
            self._ghosts.update(dict.fromkeys(sample, slot))
            self._given.add(slot, len(sample))
            self._least[slot] = _LEAST_GIVEN * room / _SAMPLE
            self._changed(slot)

    def read(self, keys: Sequence[int], now: float) -> None:
        """These blocks are going to be read."""
        if now - self._since > _WINDOW_SECS:
            self._since, self._before, self._ghosts = now, self._ghosts, {}
            self._given.turn()
            self._missed.turn()
            self._reckon()
        before, ghosts = self._before, self._ghosts
        if not before and not ghosts:
            return
        for key in _sample(keys):
            given_up, last = before.pop(key, None), ghosts.pop(key, None)
            slot = given_up if last is None else last
            if slot is not None:
                self._missed.add(slot, 1)
                self._changed(slot)

    def _changed(self, slot: int) -> None:
        self.shares[slot] = _share(self._missed.lately[slot], self._given.lately[slot], self._least[slot])

    def _reckon(self) -> None:
        # Mostly nothing was missed.
        counts = zip(self._missed.lately, self._given.lately, self._least, strict=True)
        self.shares = array("d", [_share(*each) if each[0] else 0.0 for each in counts])


def _share(missed: float, given: float, least: float) -> float:
    return min(missed / max(given, least), 1.0) if given else 0.0


def _sample(keys: Sequence[int]) -> list[int]:
    return [key for key in keys if not key % _SAMPLE]
