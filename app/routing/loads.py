"""What one worker has to do for this gateway, in seconds of reading prompts.

The backlog is a prediction that runs down with the clock, a second each second, and is corrected downwards by what is
seen: it is never more than the turns that have not spoken yet were thought to need.

A turn that should have spoken and did not keeps others away, the longer the more: what is late by a second is expected
to take another one, whatever else was sent since. Else a worker that cannot begin (no memory for a prompt, paused)
would look idle, and be given more and more to stand behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from msgspec import Struct

from app.routing.board import Board
from app.routing.engine_load import EngineLoad
from app.routing.queue import HoldQueue
from app.routing.rates import Rate

# How much of what an engine said before is kept when it speaks again.
_OTHERS_KEEP = 0.5
# Other gateways hear the same and would all go where it is quietest, so each goes half of the way.
_OTHERS_SHARE = 0.5


class Others(Struct, frozen=True, gc=False):
    """What an engine lately said, believed until `until`: it has `turns` of others, and needs `secs` to read those of
    them that wait; `memory` is the share of its cache's memory that is in use."""

    turns: float
    secs: float
    memory: float
    until: float


class Load:
    """One row of the board. Mutable. Times are in seconds on the caller's clock.

    `inflight`, `reading` and `backlog` are of this gateway's own turns; `others` is what the engine told of anybody's.
    `rate` is how the worker reads by itself, as it was `observed` so often. It `caches` prompts when it said that it
    found one, and `tells` when its engine has ever said how loaded it is, which no provider's does.
    """

    def __init__(self, board: Board, row: int, rate: Rate, aging: float) -> None:
        self.rate = rate
        self.inflight = self.observed = 0
        self.caches = self.tells = False
        self.held: HoldQueue[Placement] = HoldQueue(aging)
        self.others: Others | None = None
        self.row = row
        self._board = board
        self._reading: dict[int, float] = {}
        self._tokens: dict[int, int] = {}
        board.clear(row, rate)

    @property
    def reckoned(self) -> Rate:
        """The rate to reckon with."""
        return self._board.rates[self.row]

    @reckoned.setter
    def reckoned(self, rate: Rate) -> None:
        self._board.rates[self.row] = rate

    @property
    def reading(self) -> int:
        """Turns that were sent and have not spoken."""
        return len(self._reading)

    @property
    def used_tokens(self) -> int:
        """How long the prompts are that were sent and are not over. What they share is counted for each."""
        return sum(self._tokens.values())

    @property
    def memory(self) -> float:
        """The share of its cache's memory that turns hold, as far as its engine tells."""
        return self._board.memory[self.row]

    def busy(self, now: float) -> float:
        """The share of its time that the worker lately spent reading for turns that were sent; may exceed 1."""
        return self._board.busy(self.row, now)

    def backlog(self, now: float) -> float:
        """Seconds of reading still to do for turns that were sent, and for how long the first of them is late."""
        free, due = self._board.free[self.row], self._board.due[self.row]
        return (free - now if free > now else 0.0) + (now - due if now > due else 0.0)

    def room_at(self, secs: float, now: float) -> float:
        """When the backlog will have run down to `secs`: infinite where the first turn will be late before, or is.

        While it is late the backlog only grows, and what it is waiting for is that turn's first word.
        """
        board, row = self._board, self.row
        at = max(board.free[row] - secs, now)
        return at if at <= board.due[row] else inf

    def told(self, engine: EngineLoad, own: int, turn_secs: float, now: float, until: float) -> None:
        """The engine's own word, when it had at most `own` turns of ours; others' take `turn_secs` each to read."""
        self.tells = True
        turns = float(max(engine.running + engine.waiting - own, 0))
        secs = min(max(engine.waiting - self.reading, 0), turns) * turn_secs
        before = self.others
        if before is not None and now < before.until:
            # By the time it is used it is old; what is usual there foretells more than what just was.
            turns += _OTHERS_KEEP * (before.turns - turns)
            secs += _OTHERS_KEEP * (before.secs - secs)
        self.others = Others(turns, secs, engine.memory, until)
        self._show()

    def expire(self, now: float) -> None:
        """What the engine said is forgotten when it is old."""
        if self.others is not None and now >= self.others.until:
            self.others = None
            self._show()

    def hold(self, turn: Placement) -> None:
        """The turn waits for the worker, or what is left of it."""
        turn.ticket = self.held.push(turn, turn.secs, turn.arrived, begun=turn.begun)
        self._show()

    def take(self) -> Placement | None:
        """The held turn whose time has come waits no more."""
        turn = self.held.pop()
        self._show()
        return turn

    def discard(self, turn: Placement) -> None:
        """The held turn is no longer wanted."""
        self.held.discard(turn.ticket)
        self._show()

    def sent(self, serial: int, secs: float, now: float, tokens: int = 0) -> None:
        """A turn of so many tokens that needs `secs` of reading goes to the worker."""
        board, row = self._board, self.row
        board.read(row, secs, now)
        if not self._reading:
            board.due[row] = now + secs
        board.free[row] = max(board.free[row], now) + secs
        self._reading[serial] = secs
        self._tokens[serial] = tokens
        self.inflight += 1
        self._show()

    def spoke(self, serial: int, now: float) -> None:
        """The turn is past reading, or over."""
        board, row, reading = self._board, self.row, self._reading
        if serial not in reading:
            return
        first, late = next(iter(reading)) == serial, now > board.due[row]
        del reading[serial]
        if not reading:
            board.free[row], board.due[row] = -inf, inf
            return
        rest = now + sum(reading.values())
        # While the first one was late, nothing behind it was read.
        board.free[row] = rest if late else min(max(board.free[row], now), rest)
        if first:
            board.due[row] = now + next(iter(reading.values()))

    def ended(self, serial: int, now: float) -> None:
        """The turn is over."""
        self.spoke(serial, now)
        self._tokens.pop(serial, None)
        self.inflight -= 1
        self._show()

    def _show(self) -> None:
        board, row, others = self._board, self.row, self.others
        board.rest[row] = self.held.rest
        if others is None:
            board.turns[row], board.queued[row], board.memory[row] = self.inflight, self.held.secs, 0.0
        else:
            board.turns[row] = self.inflight + _OTHERS_SHARE * others.turns
            board.queued[row], board.memory[row] = self.held.secs + others.secs, others.memory


class PartRead(Struct, frozen=True, gc=False):
    """What became of a part of a prompt: the prompt has been read `upto` there.

    The engine `found` so many tokens of it cached and computed `new` ones; both 0 if it does not tell. `kept`: it still
    had the part before.
    """

    upto: int
    found: int
    new: int
    kept: bool


class Placement:
    """A turn's place at a worker, one of `choice`. `sent_at` is None while it is held back.

    `moved`: it was held at another one before, since it had `arrived`; here it was `placed`. `block` is how many tokens
    each of its `keys` stands for. `load` is the worker's: one that was removed and comes back has another.

    `cached` tokens are there when it is sent, which is as many as `predicted` until a part was read and it has `begun`.
    `part` is how many more are to be read now; 0: all, and of a `whole` turn always.
    """

    __slots__ = (
        "arrived",
        "begun",
        "block",
        "cached",
        "choice",
        "idle",
        "keys",
        "load",
        "moved",
        "part",
        "placed",
        "predicted",
        "secs",
        "sent_at",
        "serial",
        "spoken",
        "ticket",
        "tokens",
        "whole",
        "worker_id",
    )

    def __init__(self, worker_id: str, serial: int, keys: Sequence[int], tokens: int, now: float) -> None:
        self.worker_id = worker_id
        self.serial = serial
        self.keys = keys
        self.tokens = tokens
        self.arrived = self.placed = now
        self.moved = False
        self.load: Load | None = None
        self.choice: Sequence[str] = ()
        self.block = 0.0
        self.cached = self.predicted = self.part = 0
        self.begun = self.whole = False
        self.secs = 0.0
        self.ticket = 0
        self.sent_at: float | None = None
        self.idle = False
        self.spoken = False

    @property
    def depth(self) -> int:
        """How many of its `keys` the worker was thought to hold."""
        return round(self.cached / self.block)
