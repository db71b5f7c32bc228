"""Workers to choose from, all alike but for what is said."""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies import Field
from app.routing.rates import Rate


def a_field(*inflight: float, memory: Sequence[float] = ()) -> Field:
    nothing = [0.0] * len(inflight)
    return Field(
        ids=[str(index) for index in range(len(inflight))],
        inflight=inflight,
        backlog_secs=nothing,
        held_secs=nothing,
        rest_secs=nothing,
        cached=[0] * len(inflight),
        rates=[Rate()] * len(inflight),
        quickest=Rate(),
        busy=nothing,
        memory=memory or nothing,
        regret=nothing,
    )
