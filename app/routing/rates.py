"""How long a worker takes to read a prompt, learned from how long it took.

`secs = start + scale * (token * new + pair * new * (cached + new / 2))`: a fixed part, a part for each token that is
computed, and a part for each pair of a computed token and one it attends to. The shape is given; each worker's `start`
and `scale` follow its first tokens. They begin high: a worker thought slower than it is gets less to do at once, which
is cheaper than being swamped.
"""

from __future__ import annotations

from msgspec import Struct

_TOKEN_SECS = 1.4e-4
_PAIR_SECS = 2.6e-9
# Below this many computed tokens the fixed part dominates what is seen.
_SHORT_TOKENS = 512
_WEIGHT = 0.2
# One odd observation (a paused worker, a burst beside us) must not turn the estimate over.
_MOST, _LEAST = 4.0, 0.25
# What no worker is beyond; without bounds, times that cannot be would take the rates to nothing.
_STARTS, _SCALES = (1e-4, 10.0), (1e-3, 1e3)
# Workers that differ by less than this factor are the same machine seen through noise.
_ALIKE = 1.5


class Rate(Struct, frozen=True, gc=False):
    """What one worker's reading of prompts costs, in seconds."""

    start: float = 0.02
    scale: float = 1.0

    def secs(self, new: int, cached: int) -> float:
        """Seconds to compute `new` tokens behind `cached` ones."""
        return self.start + self.scale * new * (_TOKEN_SECS + _PAIR_SECS * (cached + new / 2))

    def observed(self, new: int, cached: int, secs: float) -> Rate:
        """The rate after an idle worker took `secs` to first speak after a prompt of `new` and `cached` tokens."""
        if new < _SHORT_TOKENS:
            work = self.secs(new, cached) - self.start
            ratio = min(max((secs - work) / self.start, _LEAST), _MOST)
            return Rate(_within(self.start * ratio**_WEIGHT, _STARTS), self.scale)
        ratio = min(max((secs - self.start) / (self.secs(new, cached) - self.start), _LEAST), _MOST)
        return Rate(self.start, _within(self.scale * ratio**_WEIGHT, _SCALES))

    def like(self, fleet: Rate) -> bool:
        """Whether this is the fleet's rate seen through noise, so that the fleet's is the one to reckon with.

        Else whichever of equal workers happened to look fastest would get every turn of a quiet hour.
        """
        return fleet.scale < self.scale * _ALIKE and self.scale < fleet.scale * _ALIKE


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
