"""What a policy may look at. Nothing else: no clock, no dice, no state, so every choice can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct


class Ask(Struct, frozen=True, kw_only=True):
    """The turn that needs a worker.

    `serial` counts the turns of the fleet. `draws` are two fresh numbers in [0, 1).
    """

    serial: int = 0
    draws: tuple[float, float] = (0.0, 0.0)


class Candidate(Struct, frozen=True, kw_only=True):
    """A worker that may take the turn. `inflight` counts the turns it has from this gateway."""

    id: str
    inflight: int = 0


# Returns the index of the chosen candidate. There is at least one candidate, and their order is stable.
Policy: TypeAlias = Callable[[Ask, Sequence[Candidate]], int]
