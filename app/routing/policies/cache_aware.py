"""The worker where the turn costs least, in seconds, for itself and for the others there.

What a worker holds of the prompt saves seconds, and what it has to do already costs seconds; so the two are compared in
the same unit, and no threshold decides between them. A prefix that many ask for spreads by itself: once its worker has
more to do than reading the prefix anew would take, the next turn goes elsewhere and a second worker holds it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from operator import add

from app.routing.policies.values import Ask, Field
from app.routing.rates import Rate

# While a prompt is read, the turns that are being written at the same worker stand still.
_HARM_WEIGHT = 0.25
# Beyond so many of them one more makes no difference. Else, where all workers are full, the long prompts would queue up
# at the few workers that write little because they hold long ones already, many times as long as anybody else waits.
_MOST_HARMED = 30
# And where much is read, this turn's answer will stand still: about as many seconds of it as it takes to write.
_BUSY_SECS = 2.0
# However busy the workers are, some of their time is free.
_MOST_BUSY = 0.9
_MOST_LATER = 1 / (1 - _MOST_BUSY)
# A worker is as busy as it lately was, or will be for so long: one that cannot read, for want of memory, is not free.
_AHEAD_SECS = 10.0
# Who comes after this turn is mostly, but not always, given the same worker.
_FLEET_WEIGHT = 0.5
# One turn waits for each so many seconds of reading that are held back.
_WAITING_SECS = 2.0
# They count as far as the worker with the fewest holds some back too, so many times as much and some seconds. Where one
# has nothing to do, nobody should wait long for another: the longer they wait the more they would weigh, and stay.
_MOST_HELD, _MOST_HELD_SECS = 4.0, 8.0
# What is read takes the place of something else. Where the share r of that is asked for again and read again, it takes
# the place of something else, and so on: r + r^2 + ... is r / (1 - r). The largest share that counts, and what a second
# of that reading counts: others wait for it too.
_MOST_REGRET, _AGAIN_WEIGHT = 0.9, 3.0
_MOST_AGAIN = _AGAIN_WEIGHT * _MOST_REGRET / (1 - _MOST_REGRET)


def later(busy: float) -> float:
    """The seconds that those who come later wait for one more second of reading, where the share `busy` of the time
    goes into reading: it is made up for in the time that is free."""
    return 1 / (1 - busy) if busy < _MOST_BUSY else _MOST_LATER


def cache_aware(ask: Ask, field: Field) -> int:
    """The cheapest worker; among equals the one with fewer turns in flight, then they take turns."""
    tokens, workers = ask.tokens, len(field.ids)
    start = ask.serial % workers
    held_secs = min(sum(field.held_secs) / workers, _MOST_HELD * min(field.held_secs) + _MOST_HELD_SECS)
    # A second of this turn's reading is taken from itself, from those that wait already, and from all that come before
    # there is time to spare.
    weight = 1 + _FLEET_WEIGHT * later(sum(field.busy) / workers) + held_secs / _WAITING_SECS
    best, best_cost, best_rank = 0, float("inf"), (0.0, 0)
    # Most workers hold nothing of the prompt and read alike, so what it costs one of them it costs the next.
    own, known, like = 0.0, -1, None
    least = weight + later(0.0)
    # Whoever holds most of the prompt is mostly the cheapest. Looked at first, it spares a close look at the others.
    likely = field.cached.index(max(field.cached))
    for index, queue, cached, rate, busy, inflight, rest, regret in chain(
        islice(_rows(field), likely, likely + 1), _rows(field)
    ):
        if cached != known or rate is not like:
            known, like = cached, rate
            own = rate.secs(tokens - cached, cached)
        if queue + own * least > best_cost:
            continue
        # Not by `later` and `min`: that would take half as long again.
        others = weight + _HARM_WEIGHT * (inflight if inflight < _MOST_HARMED else _MOST_HARMED)  # noqa: FURB136
        share = queue / _AHEAD_SECS if queue > _AHEAD_SECS * busy else busy
        others += 1 / (1 - share) if share < _MOST_BUSY else _MOST_LATER
        if regret:
            others += _AGAIN_WEIGHT * regret / (1 - regret) if regret < _MOST_REGRET else _MOST_AGAIN
        cost = queue + own * others + _BUSY_SECS * busy
        if rest:
            # What is read in parts lets pass what is shorter.
            cost += min(own, rest)
        if cost <= best_cost:
            rank = (inflight, (index - start) % workers)
            if cost < best_cost or rank < best_rank:
                best, best_cost, best_rank = index, cost, rank
    return best


def _rows(field: Field) -> Iterator[tuple[int, float, int, Rate, float, float, float, float]]:
    return zip(
        range(len(field.ids)),
        map(add, field.backlog_secs, field.held_secs),
        field.cached,
        field.rates,
        field.busy,
        field.inflight,
        field.rest_secs,
        field.regret,
        strict=True,
    )
