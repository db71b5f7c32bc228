"""How long a worker takes to read a prompt, learned from how long it took.

`secs = start + scale * (token * new + pair * new * (cached + new / 2))`: a fixed part, a part for each token that is
computed, and a part for each pair of a computed token and one it attends to. The shape is given; each worker's `start`
and `scale` follow its first tokens. They begin high: a worker thought slower than it is gets less to do at once, which
is cheaper than being swamped.

What was seen changes each part by as much of it as that part was thought to be. A short prompt says how long the fixed
part takes (with the step that is under way, and the answers that are being written) and next to nothing about the rest.
To take the fixed part off what was seen and learn from the remainder does not do: after some slow short prompts nothing
is left of a quick one, the worker looks three times as fast as it is, is given the long prompts of all the others for
that, and is never idle again to show that it is not.
"""

from __future__ import annotations

from collections.abc import Collection
from math import sqrt

from msgspec import Struct

_TOKEN_SECS = 1.4e-4
_PAIR_SECS = 2.6e-9
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

    def tokens(self, secs: float, cached: int) -> float:
        """How many tokens behind `cached` ones are computed in `secs`, beside the fixed part."""
        each = _TOKEN_SECS + _PAIR_SECS * cached
        return (sqrt(each * each + 2 * _PAIR_SECS * secs / self.scale) - each) / _PAIR_SECS

    def observed(self, new: int, cached: int, secs: float) -> Rate:
        """The rate after an idle worker took `secs` to first speak after a prompt of `new` and `cached` tokens."""
        expected = self.secs(new, cached)
        ratio = min(max(secs / expected, _LEAST), _MOST)
        fixed = self.start / expected
        start = self.start * ratio ** (_WEIGHT * fixed)
        scale = self.scale * ratio ** (_WEIGHT * (1 - fixed))
        return Rate(_within(start, _STARTS), _within(scale, _SCALES))

    def like(self, fleet: Rate) -> bool:
        """Whether this is the fleet's rate seen through noise, so that the fleet's is the one to reckon with.

        Else whichever of equal workers happened to look fastest would get every turn of a quiet hour.
        """
        return fleet.scale < self.scale * _ALIKE and self.scale < fleet.scale * _ALIKE


def quickest(rates: Collection[Rate]) -> Rate:
    """None of these takes less, whatever it reads."""
    return Rate(min([rate.start for rate in rates]), min([rate.scale for rate in rates]))


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
