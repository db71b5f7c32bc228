"""The circuit breaker of one worker, as a reducer: state, event and time in, state out.

Closed, it counts failures in a row. Open, it lets nothing through. When it has been open long enough it is half open:
one trial at a time, and enough good trials in a row close it, while a bad one opens it again.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace


class Circuit(Enum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Rules(Struct, frozen=True, kw_only=True):
    """When a breaker moves. Durations in seconds."""

    failures: int
    successes: int
    open_secs: float
    window_secs: float


class Breaker(Struct, frozen=True):
    """What is remembered. `count` is failures in a row when closed and good trials when half open.

    `since` is when the circuit opened, when its first trial began, or when the first failure of the row came.
    """

    circuit: Circuit = Circuit.CLOSED
    count: int = 0
    since: float = 0.0
    trial: bool = False


# A turn `begins`; then it is `good`, or `bad` (the worker's fault), or `void` (nothing was learned about the worker).
Event: TypeAlias = Literal["begins", "good", "bad", "void"]


def admits(breaker: Breaker, now: float, rules: Rules) -> bool:
    """Whether a turn may go to the worker now."""
    match breaker.circuit:
        case Circuit.CLOSED:
            return True
        case Circuit.OPEN:
            return now - breaker.since >= rules.open_secs
        case Circuit.HALF_OPEN:
            return not breaker.trial


def step(breaker: Breaker, event: Event, now: float, rules: Rules, begun: float | None = None) -> Breaker:
    """The breaker after `event` at time `now` (seconds), of a turn that began when `begun` says; None: now."""
    match breaker.circuit:
        case Circuit.CLOSED:
            return _closed(breaker, event, now, rules)
        case Circuit.OPEN:
            # Turns that were under way when the circuit opened say nothing new.
            is_trial = event == "begins" and admits(breaker, now, rules)
            return Breaker(Circuit.HALF_OPEN, 0, now, trial=True) if is_trial else breaker
        case Circuit.HALF_OPEN:
            # Nor do they then: the trial that is under way is still to be waited for.
            stale = begun is not None and begun < breaker.since
            return breaker if stale else _half_open(breaker, event, now, rules)


def _closed(breaker: Breaker, event: Event, now: float, rules: Rules) -> Breaker:
    if event == "good":
        return Breaker()
    if event != "bad":
        return breaker
    stale = breaker.count == 0 or now - breaker.since > rules.window_secs
    count, since = (1, now) if stale else (breaker.count + 1, breaker.since)
    return Breaker(Circuit.OPEN, 0, now) if count >= rules.failures else Breaker(Circuit.CLOSED, count, since)


def _half_open(breaker: Breaker, event: Event, now: float, rules: Rules) -> Breaker:
    match event:
        case "begins":
            return replace(breaker, trial=True)
        case "void":
            return replace(breaker, trial=False)
        case "bad":
            return Breaker(Circuit.OPEN, 0, now)
        case "good":
            count = breaker.count + 1
            return Breaker() if count >= rules.successes else replace(breaker, count=count, trial=False)
