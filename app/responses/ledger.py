"""What is stored together with a run's log: riders, and who takes them along.

A turn is one commit. What another room has to write down about a step of a run (a call, for whoever audits it) would
be a commit of its own, right before the one that makes the step durable. It is handed to the run instead, and rides in
that one: it is stored when the step is, and not when the step is not.
"""

from __future__ import annotations

from typing import Any, Protocol

from app.turn.errors import GatewayError


class Rider(Protocol):
    """Something to be stored in somebody else's transaction."""

    def write(self, transaction: Any) -> None:
        """Store it: as a part of `transaction`, which is what the store of runs is written with. It may be called from
        another thread, and again after an attempt that failed."""
        ...

    def lost(self, why: GatewayError) -> None:
        """It cannot be stored any more, and somebody should hear of that."""
        ...


class Ledger(Protocol):
    """A run, for those who write about its steps."""

    def ride(self, rider: Rider) -> bool:
        """Have it stored with the next entry of the run's log. False: nothing is (or is any more) written about the run
        here, so it is for the caller to store it."""
        ...
