"""Routers beside SMG's tree, as tables, from what `bench.routing --json` wrote.

python -m bench.ratios REPLAY.jsonl

One row for each router of each scenario, and how many times better than SMG's tree it is (mean and p99 time to first
token, end to end); then the ratios and their geometric means over the loaded scenarios that are there. Of rows for the
same scenario and router the last one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean

from bench.routing import ALONE

LOADED = (
    "conversation x1.8, 8 workers",
    "conversation x2.2, 8 workers",
    "toolagent x3, 8 workers",
    "synthetic x1.5, 8 workers",
    "agents 48, 8 workers",
    "agents 80, 8 workers",
    "agents 160, 8 workers, 4.9M tokens each",
)

# Scenario, then router.
Found = Mapping[str, Mapping[str, Mapping[str, float]]]

_BASE = "smg_tree"
_SHOWN = ("mean", "p50", "p90", "p99", "e2e")
_COMPARED = ("mean", "p99", "e2e")


def read(lines: Sequence[str]) -> Found:
    """The rows, in the order in which they were written; of scenarios that SMG's tree was in."""
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for line in lines:
        row = json.loads(line)
        found.setdefault(row["scenario"], {})[row["router"]] = row
    return {scenario: rows for scenario, rows in found.items() if _BASE in rows}


def ratios(base: Mapping[str, float], row: Mapping[str, float]) -> list[float]:
    """How many times better than `base` the row is: mean, p99, end to end."""
    return [base[key] / row[key] for key in _COMPARED]


def table(found: Found) -> Iterator[str]:
    """Everything, a line each."""
    yield "| replay | router | of ideal reuse | TTFT mean | p50 | p90 | p99 | end to end | per s | times SMG's tree |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for scenario, rows in found.items():
        for place, (router, row) in enumerate(rows.items()):
            cells = [
                scenario if place == 0 else "",
                router,
                f"{row['hit'] / row['ideal']:.2f}" if row["ideal"] else "-",
            ]
            cells += [f"{row[key]:.2f}" for key in _SHOWN]
            cells += [f"{row['rate']:.2f}" if "rate" in row else "-"]
            cells += [_joined(ratios(rows[_BASE], row))]
            yield f"| {' | '.join(cells)} |"


def loaded(found: Found, scenarios: Sequence[str]) -> Iterator[str]:
    """The ratios alone, of each router that was in all of the scenarios that are there, and their geometric means."""
    there = [scenario for scenario in scenarios if scenario in found]
    if missing := [scenario for scenario in scenarios if scenario not in found]:
        yield f"Without {'; '.join(missing)}."
        yield ""
    routers = [
        router
        for router in (found[there[0]] if there else ())
        if router not in (_BASE, ALONE) and all(router in found[scenario] for scenario in there)
    ]
    yield f"| {' | '.join(['replay', f'{_BASE} (s)', *routers])} |"
    yield "|" + "---|" * (len(routers) + 2)
    every: dict[str, list[list[float]]] = {router: [] for router in routers}
    for scenario in there:
        rows = found[scenario]
        for router in routers:
            every[router].append(ratios(rows[_BASE], rows[router]))
        secs = _joined(rows[_BASE][key] for key in _COMPARED)
        yield f"| {' | '.join([scenario, secs, *(_joined(every[router][-1]) for router in routers)])} |"
    means = [_joined(map(geometric_mean, zip(*every[router], strict=True))) for router in routers]
    yield f"| {' | '.join(['geometric mean', '', *means])} |"


def _joined(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def main(arguments: Sequence[str]) -> None:
    """Print both."""
    (path,) = arguments
    found = read(Path(path).read_text().splitlines())
    print("\n".join([*table(found), "", *loaded(found, LOADED)]))


if __name__ == "__main__":
    main(sys.argv[1:])
