"""Draws what `bench.fleet --raw` and `bench.routing --json` wrote, as SVG, without any library.

python -m bench.plot fleet RAW.jsonl docs/routing-fleet.svg
python -m bench.plot replay REPLAY.jsonl docs/routing-replay.svg
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

_COLORS: Mapping[str, str] = {
    "shepherd": "#1a7f5a",
    "ours": "#1a7f5a",
    "ours_approx": "#7cc7a8",
    "smg": "#b5482f",
    "alone": "#bbbbbb",
}
_OTHERS = ("#b5482f", "#8a8a8a", "#c9a227", "#4a6fa5", "#6d597a")


def text(x: float, y: float, said: str, *, anchor: str = "start", size: int = 13, color: str = "#333") -> str:
    """Words."""
    style = f'font-family="sans-serif" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(said)}</text>'


def line(points: Sequence[tuple[float, float]], color: str, width: float = 2.0) -> str:
    """A line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """A whole picture, on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def fleet(path: Path) -> str:
    """The share of requests that had their first token within a time, for each gateway; times on a log scale."""
    firsts: dict[str, list[float]] = {}
    for row in path.read_text().splitlines():
        name, first, _, how, _ = json.loads(row)
        firsts.setdefault(name, []).append(first if how == "done" else math.inf)
    left, top, width, height = 60, 40, 520, 260
    low, high = 0.02, 40.0

    def x(secs: float) -> float:
        return left + width * (math.log(min(max(secs, low), high)) - math.log(low)) / (math.log(high) - math.log(low))

    def y(share: float) -> float:
        return top + height * (1 - share)

    parts = [text(left, 22, "Requests that had their first token within so many seconds", size=15)]
    for secs in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40):
        parts += [line([(x(secs), top), (x(secs), top + height)], "#e6e6e6", 1.0)]
        parts += [text(x(secs), top + height + 18, f"{secs:g}", anchor="middle", size=11)]
    for share in (0, 0.25, 0.5, 0.75, 0.9, 0.99):
        parts += [line([(left, y(share)), (left + width, y(share))], "#e6e6e6", 1.0)]
        parts += [text(left - 8, y(share) + 4, f"{share:.0%}", anchor="end", size=11)]
    for place, (name, values) in enumerate(firsts.items()):
        color = _COLORS.get(name, _OTHERS[place % len(_OTHERS)])
        ordered = sorted(values)
        step = max(len(ordered) // 400, 1)
        points = [(x(value), y((index + 1) / len(ordered))) for index, value in enumerate(ordered) if not index % step]
        parts += [line(points, color), text(left + width + 12, top + 20 + 20 * place, name, color=color)]
    return picture(700, 340, parts)


def bars(rows: Sequence[Mapping[str, object]], key: str, title: str, top: float) -> Iterator[str]:
    """One bar for each router in each scenario: how many times better than SMG's tree `key` is; logarithmic.

    The bar of `alone` is what no router can be better than.
    """
    left, width, bar = 250, 380, 13
    low, high = 0.25, 8.0

    def x(ratio: float) -> float:
        return left + width * (math.log(min(max(ratio, low), high) / low) / math.log(high / low))

    yield text(20, top, title, size=15)
    y = top + 14
    scenarios = dict.fromkeys(str(row["scenario"]) for row in rows)
    start = y
    for scenario in scenarios:
        inside = [row for row in rows if row["scenario"] == scenario]
        (base,) = [float(str(row[key])) for row in inside if row["router"] == "smg_tree"]
        shown = [row for row in inside if row["router"] != "smg_tree"]
        yield text(20, y + bar, scenario, size=12)
        y += bar + 6
        for place, row in enumerate(shown):
            ratio = base / float(str(row[key]))
            color = _COLORS.get(str(row["router"]), _OTHERS[1 + place % 4])
            at, wide = min(x(1), x(ratio)), abs(x(ratio) - x(1))
            yield f'<rect x="{at:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{bar - 3}" fill="{color}"/>'
            yield text(left - 8, y + bar - 3, str(row["router"]), anchor="end", size=10)
            yield text(max(x(1), x(ratio)) + 4, y + bar - 3, f"{ratio:.2f}", size=10)
            y += bar
        y += 8
    yield line([(x(1), start - 4), (x(1), y)], "#333", 1.0)


def replay(path: Path) -> str:
    """Mean and p99 TTFT and latency of every router beside SMG's tree."""
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    routers = len({row["router"] for row in rows}) - 1
    block = 40 + len({row["scenario"] for row in rows}) * (routers * 13 + 27)
    parts: list[str] = []
    titles = (("mean", "mean time to first token"), ("p99", "p99 time to first token"), ("e2e", "mean latency"))
    for place, (key, title) in enumerate(titles):
        parts += bars(rows, key, f"Times better than SMG's tree: {title}", 30 + place * block)
    return picture(700, 20 + 3 * block, parts)


def main(arguments: Sequence[str]) -> None:
    """Draw."""
    kind, source, target = arguments
    Path(target).write_text((fleet if kind == "fleet" else replay)(Path(source)))


if __name__ == "__main__":
    main(sys.argv[1:])
