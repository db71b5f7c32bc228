"""What one worker has to do for this gateway, in seconds of reading prompts.

The backlog is a prediction that runs down with the clock, a second each second, and is corrected downwards by what is
seen: it is never more than the turns that have not spoken yet were thought to need.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from msgspec import Struct

from app.routing.engine_load import EngineLoad
from app.routing.queue import HoldQueue
from app.routing.rates import Rate

# How far back "lately" goes: about as long as a turn is being written.
_BUSY_SECS = 10.0
# How much of what an engine said before is kept when it speaks again.
_OTHERS_KEEP = 0.5


class Others(Struct, frozen=True, gc=False):
    """What an engine lately said, believed until `until`: it has `turns` of others, and needs `secs` to read those of
    them that wait; `memory` is the share of its cache's memory that is in use."""

    turns: float
    secs: float
    memory: float
    until: float


class Load:
    """Mutable. Times are in seconds on the caller's clock.

    `inflight`, `reading` and `backlog` are of this gateway's own turns; `others` is what the engine told of anybody's.
    `rate` is how it reads by itself, `reckoned` the rate to reckon with.
    """

    # All loads are looked at for every turn, so what they take of the processor's cache is felt.
    __slots__ = ("_at", "_backlog", "_busy", "_reading", "held", "inflight", "others", "rate", "reckoned")

    def __init__(self, aging: float) -> None:
        self.rate = self.reckoned = Rate()
        self.inflight = 0
        self.held: HoldQueue[Placement] = HoldQueue(aging)
        self.others: Others | None = None
        self._reading: dict[int, float] = {}
        self._backlog = 0.0
        self._at = 0.0
        self._busy = 0.0

    def busy(self, now: float) -> float:
        """The share of its time that the worker lately spent reading for turns that were sent; may exceed 1."""
        return self.weight(now)[1]

    @property
    def reading(self) -> int:
        """Turns that were sent and have not spoken."""
        return len(self._reading)

    def backlog(self, now: float) -> float:
        """Seconds of reading still to do for turns that were sent.

        Turns that should have spoken and did not keep others away, the longer the more: what is late by a second is
        expected to take another one. Else a worker that cannot begin (no memory for a prompt, paused) would look idle.
        """
        return self.weight(now)[0]

    def weight(self, now: float) -> tuple[float, float]:
        """`backlog` and `busy`."""
        passed, busy = now - self._at, self._busy
        if busy:
            busy *= exp(-passed / _BUSY_SECS)
        left = self._backlog - passed
        if left > 0:
            return left, busy
        return (-left if self._reading else 0.0), busy

    def told(self, engine: EngineLoad, own: int, turn_secs: float, now: float, until: float) -> None:
        """The engine's own word, when it had at most `own` turns of ours; others' take `turn_secs` each to read."""
        turns = float(max(engine.running + engine.waiting - own, 0))
        secs = min(max(engine.waiting - self.reading, 0), turns) * turn_secs
        before = self.others
        if before is not None and now < before.until:
            # By the time it is used it is old; what is usual there foretells more than what just was.
            turns += _OTHERS_KEEP * (before.turns - turns)
            secs += _OTHERS_KEEP * (before.secs - secs)
        self.others = Others(turns, secs, engine.memory, until)

    def sent(self, serial: int, secs: float, now: float) -> None:
        """A turn that needs `secs` of reading goes to the worker."""
        backlog, busy = self.weight(now)
        self._busy = busy + secs / _BUSY_SECS
        self._backlog = backlog + secs
        self._at = now
        self._reading[serial] = secs
        self.inflight += 1

    def spoke(self, serial: int, now: float) -> None:
        """The turn is past reading, or over."""
        if self._reading.pop(serial, None) is not None:
            backlog, self._busy = self.weight(now)
            self._backlog = min(backlog, sum(self._reading.values()))
            self._at = now

    def ended(self, serial: int, now: float) -> None:
        """The turn is over."""
        self.spoke(serial, now)
        self.inflight -= 1


class Placement:
    """A turn's place at a worker, one of `choice`. `sent_at` is None while it is held back.

    `moved`: it was held at another one before. `block` is how many tokens each of its `keys` stands for.
    """

    __slots__ = (
        "arrived",
        "block",
        "cached",
        "choice",
        "depth",
        "idle",
        "keys",
        "moved",
        "secs",
        "sent_at",
        "serial",
        "spoken",
        "ticket",
        "tokens",
        "worker_id",
    )

    def __init__(self, worker_id: str, serial: int, keys: Sequence[int], tokens: int, now: float) -> None:
        self.worker_id = worker_id
        self.serial = serial
        self.keys = keys
        self.tokens = tokens
        self.arrived = now
        self.moved = False
        self.choice: Sequence[str] = ()
        self.block = 0.0
        self.cached = 0
        self.depth = 0
        self.secs = 0.0
        self.ticket = 0
        self.sent_at: float | None = None
        self.idle = False
        self.spoken = False
