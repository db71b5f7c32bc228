"""What became of requests, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from bench.fleet_client import Outcome

HEAD = (
    "| gateway | hit | TTFT mean | p50 | p90 | p99 | latency | failed | CPU s |\n|---|---|---|---|---|---|---|---|---|"
)


def figures(outcomes: Sequence[Outcome]) -> tuple[float, ...]:
    """Mean, p50, p90 and p99 of the time to the first token, and the mean time to the last, of requests that are
    done."""
    firsts = sorted(outcome.first for outcome in outcomes)
    at = [firsts[int(len(firsts) * share)] for share in (0.5, 0.9, 0.99)]
    return statistics.fmean(firsts), *at, statistics.fmean(outcome.ended for outcome in outcomes)


def report(name: str, outcomes: Sequence[Outcome], cpu: float) -> str:
    """A row of the table."""
    done = [outcome for outcome in outcomes if outcome.how == "done"]
    hit = sum(outcome.cached for outcome in done) / max(sum(outcome.tokens for outcome in done), 1)
    cells = [f"{hit:.3f}", *(f"{value:.2f}" for value in figures(done)), str(len(outcomes) - len(done)), f"{cpu:.1f}"]
    return f"| {name} | {' | '.join(cells)} |"


def beside(found: Mapping[str, Mapping[tuple[int, int], Outcome]]) -> Iterator[str]:
    """The requests that were done behind every gateway, a line for each; in brackets, times better than the first."""
    shared = set[tuple[int, int]].intersection(*(set(outcomes) for outcomes in found.values()))
    yield f"The {len(shared)} turns that were done behind all of them"
    yield ""
    yield "| gateway | turns in all | TTFT mean | p50 | p90 | p99 | latency |"
    yield "|---|---|---|---|---|---|---|"
    base: Sequence[float] = ()
    for name, outcomes in found.items() if shared else ():
        mine = figures([outcomes[key] for key in shared])
        base = base or mine
        cells = [f"{value:.2f} [{first / value:.2f}]" for value, first in zip(mine, base, strict=True)]
        yield f"| {name} | {len(outcomes)} | {' | '.join(cells)} |"
