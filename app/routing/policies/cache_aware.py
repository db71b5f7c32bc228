"""The worker where the turn costs least, in seconds, for itself and for the others there.

What a worker holds of the prompt saves seconds, and what it has to do already costs seconds; so the two are compared in
the same unit, and no threshold decides between them. A prefix that many ask for spreads by itself: once its worker has
more to do than reading the prefix anew would take, the next turn goes elsewhere and a second worker holds it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from operator import add
from typing import NamedTuple, TypeAlias

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


_Row: TypeAlias = tuple[int, float, int, Rate, float, float, float, float]


def later(busy: float) -> float:
    """The seconds that those who come later wait for one more second of reading, where the share `busy` of the time
    goes into reading: it is made up for in the time that is free."""
    return 1 / (1 - busy) if busy < _MOST_BUSY else _MOST_LATER


_IDLE = later(0.0)
# So many workers are looked at one by one; that takes less than to look at all.
_FEW = 4
_ALL = slice(None)


def cache_aware(ask: Ask, field: Field) -> int:
    """The cheapest worker; among equals the one with fewer turns in flight, then they take turns."""
    workers, held_least = len(field.ids), min(field.held_secs) if any(field.held_secs) else 0.0
    weight = _weight(field, held_least)
    # Whoever holds more of the prompt than all do is mostly cheapest. Looked at first, it spares a look at the others.
    least = min(field.cached)
    holders = [index for index, cached in enumerate(field.cached) if cached > least]
    few, found = len(holders) <= _FEW, _NONE
    for index in holders if few else [field.cached.index(max(field.cached))]:
        found = _cheapest(ask, _rows(field, slice(index, index + 1)), workers, weight, found)
    if few:
        # Of all others none is better off than one that is as quick as any and has nothing to do.
        own = field.quickest.secs(ask.tokens - least, least)
        if found.cost < min(field.backlog_secs) + held_least + own * (weight + _IDLE):
            return found.place
    return _cheapest(ask, _rows(field, _ALL), workers, weight, found).place


class _Found(NamedTuple):
    place: int
    cost: float
    rank: tuple[float, int]


_NONE = _Found(0, inf, (0.0, 0))


def _weight(field: Field, held_least: float) -> float:
    """What a second of this turn's reading counts at a worker that does nothing else: it is taken from the turn itself,
    from those that wait already, and from all that come before there is time to spare."""
    workers = len(field.ids)
    held_secs = min(sum(field.held_secs) / workers, _MOST_HELD * held_least + _MOST_HELD_SECS)
    return 1 + _FLEET_WEIGHT * later(sum(field.busy) / workers) + held_secs / _WAITING_SECS


def _cheapest(ask: Ask, rows: Iterable[_Row], workers: int, weight: float, found: _Found) -> _Found:
    """The cheapest of some workers and the one that was `found`."""
    tokens, start, least = ask.tokens, ask.serial % workers, weight + _IDLE
    best, best_cost, best_rank = found
    # Most workers hold nothing of the prompt and read alike, so what it costs one of them it costs the next.
    own, known, like = 0.0, -1, None
    for index, queue, cached, rate, busy, inflight, rest, regret in rows:
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
    return _Found(best, best_cost, best_rank)


def _rows(field: Field, some: slice) -> Iterator[_Row]:
    return zip(
        range(len(field.ids))[some],
        map(add, field.backlog_secs[some], field.held_secs[some]),
        field.cached[some],
        field.rates[some],
        field.busy[some],
        field.inflight[some],
        field.rest_secs[some],
        field.regret[some],
        strict=True,
    )
