"""The worker where the turn costs least, in seconds, for itself and for the others there.

What a worker holds of the prompt saves seconds, and what it has to do already costs seconds; so the two are compared in
the same unit, and no threshold decides between them. A prefix that many ask for spreads by itself: once its worker has
more to do than reading the prefix anew would take, the next turn goes elsewhere and a second worker holds it too.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.routing.policies.values import Ask, Candidate

# Seconds of reading are seconds taken from everyone who comes after, so the turn's own count more than once.
OWN_WEIGHT = 2.5
# While a prompt is read, the turns that are being written at the same worker stand still.
_HARM_WEIGHT = 0.2
# And where much is read, this turn's answer will stand still: about as many seconds of it as it takes to write.
_BUSY_SECS = 2.0


def cache_aware(ask: Ask, candidates: Sequence[Candidate]) -> int:
    """The cheapest candidate; among equals the one with fewer turns in flight, then they take turns."""
    tokens, count = ask.tokens, len(candidates)
    start = ask.serial % count
    best, best_cost, best_rank = 0, float("inf"), (0, 0)
    # Most workers hold nothing of the prompt and read alike, so what it costs one of them it costs the next.
    own, cached, rate = 0.0, -1, None
    for index, worker in enumerate(candidates):
        if worker.cached != cached or worker.rate is not rate:
            cached, rate = worker.cached, worker.rate
            own = rate.secs(tokens - cached, cached)
        cost = worker.backlog_secs + worker.held_secs + own * (OWN_WEIGHT + _HARM_WEIGHT * worker.inflight)
        cost += _BUSY_SECS * worker.busy
        if cost <= best_cost:
            rank = (worker.inflight, (index - start) % count)
            if cost < best_cost or rank < best_rank:
                best, best_cost, best_rank = index, cost, rank
    return best
