"""Replays request traces through the router in simulated time.

    python -m bench.routing --trace conversation.jsonl --speed 1.8 --workers 8
    python -m bench.routing --unique 2500 --speed 2 --workers 8

The trace format is Mooncake's: a JSON object a line with `timestamp` (ms), `input_length`, `output_length` (tokens) and
`hash_ids`, one id for each block of 512 prompt tokens, equal leading ids meaning a shared prefix. Our router is the
gateway's own placer; the others are our reading of their algorithms. The engines are a service model, not GPUs.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from app.simulator.service import Request, ServiceEngine, ServiceModel, Step
from bench.routing_peers import PEERS, Ours, Router, Several

_EVENT_DELAY_SECS = 0.02


def load(path: Path, speed: float, limit: int | None) -> list[Request]:
    """The trace, `speed` times as fast. Equal timestamps are spread evenly until the next one."""
    rows = [json.loads(line) for line in path.read_text().splitlines()[:limit]]
    requests: list[Request] = []
    groups = [(stamp, list(group)) for stamp, group in itertools.groupby(rows, key=lambda row: row["timestamp"])]
    for index, (stamp, group) in enumerate(groups):
        until = groups[index + 1][0] if index + 1 < len(groups) else stamp + 3000
        for place, row in enumerate(group):
            at = (stamp + (until - stamp) * place / len(group)) / 1000 / speed
            keys = tuple(row["hash_ids"])
            requests.append(Request(len(requests), at, row["input_length"], max(row["output_length"], 1), keys))
    return requests


def unique(count: int, speed: float) -> list[Request]:
    """Prompts of 7,000 tokens on average, no two alike, for which 8 workers are just too few at speed 1."""
    rng, at, keys = random.Random(1), 0.0, itertools.count()
    requests: list[Request] = []
    for number in range(count):
        at += rng.expovariate(15.0 * speed)
        tokens = min(int(rng.lognormvariate(8.25, 1.1)) + 1, 120_000)
        own = [next(keys) for _ in range(-(-tokens // 512))]
        requests.append(Request(number, at, tokens, int(rng.expovariate(1 / 200)) + 1, own))
    return requests


def ideal(requests: Sequence[Request], block_tokens: int) -> float:
    """The share of prompt tokens that one endless cache would have held."""
    seen: set[int] = set()
    hit = total = 0
    for request in requests:
        depth = next((i for i, key in enumerate(request.keys) if key not in seen), len(request.keys))
        hit += min(depth * block_tokens, request.tokens)
        total += request.tokens
        seen.update(request.keys)
    return hit / total


class Replay:
    """Discrete events: arrivals, steps of engines, cache events on their way, and the router's own alarms."""

    def __init__(self, requests: Sequence[Request], engines: Sequence[ServiceEngine], router: Router) -> None:
        self._engines = engines
        self._router = router
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = itertools.count()
        self._stepping = [False] * len(engines)
        self._alarm: float | None = None
        for request in requests:
            self._at(request.arrived, lambda now, request=request: self._arrive(request, now))

    def run(self) -> None:
        while self._queue:
            now, _, act = heapq.heappop(self._queue)
            act(now)
            self._set_alarm(now)

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._serial), act))

    def _arrive(self, request: Request, now: float) -> None:
        self._send(self._router.arrive(request, now), now)

    def _send(self, sent: Sequence[tuple[Request, int]], now: float) -> None:
        for request, worker in sent:
            request.worker = worker
            self._engines[worker].submit(request)
            if not self._stepping[worker]:
                self._step(worker, now)

    def _step(self, worker: int, now: float) -> None:
        self._stepping[worker] = self._engines[worker].busy
        if self._stepping[worker]:
            secs = self._engines[worker].begin()
            self._at(now + secs, lambda now: self._stepped(worker, secs, now))

    def _stepped(self, worker: int, secs: float, now: float) -> None:
        step = self._engines[worker].finish(secs)
        stored = [key for _, keys in step.stored for key in keys]
        if stored or step.removed:
            self._at(now + _EVENT_DELAY_SECS, lambda _: self._router.events(worker, stored, step.removed))
        self._step(worker, now)
        self._tell(step, now)

    def _tell(self, step: Step, now: float) -> None:
        for request in step.first:
            request.first = now
            self._send(self._router.spoke(request, now), now)
        for request in step.ended:
            request.ended = now
            self._router.ended(request, now)

    def _set_alarm(self, now: float) -> None:
        due = self._router.due(now)
        if due is not None and (self._alarm is None or due < self._alarm):
            self._alarm = due
            self._at(max(due, now), self._ring)

    def _ring(self, now: float) -> None:
        self._alarm = None
        self._send(self._router.wake(now), now)


def build(name: str, engines: Sequence[ServiceEngine], model: ServiceModel) -> Router:
    """The router of that name over the engines. `4xours` is four of ours side by side, `4xours@2` asks for loads."""
    if name in PEERS:
        return PEERS[name](len(engines), engines, model.block_tokens)
    count, several, one = name.partition("x")
    if several and count.isdigit():
        one, _, poll = one.partition("@")
        gateways = [_ours(one, engines, model) for _ in range(int(count))]
        return Several(gateways, engines, float(poll) if poll else None)
    return _ours(name, engines, model)


def _ours(name: str, engines: Sequence[ServiceEngine], model: ServiceModel) -> Ours:
    policy = {"ours": "cache_aware", "ours_approx": "cache_aware", "ours_unheld": "cache_aware"}.get(name, name)
    return Ours(
        len(engines),
        policy,
        exact=name in ("ours", "ours_unheld"),
        hold=name in ("ours", "ours_approx"),
        block_tokens=model.block_tokens,
        worker_blocks=model.blocks,
    )


def measure(requests: Sequence[Request], engines: Sequence[ServiceEngine]) -> dict[str, float]:
    """What became of the requests."""
    waits = sorted(request.first - request.arrived for request in requests)
    work = [engine.computed for engine in engines]
    count = len(waits)
    return {
        "hit": sum(request.cached for request in requests) / sum(request.tokens for request in requests),
        "mean": sum(waits) / count,
        "p50": waits[count // 2],
        "p90": waits[int(count * 0.9)],
        "p99": waits[int(count * 0.99)],
        "e2e": sum(request.ended - request.arrived for request in requests) / count,
        "imbalance": max(work) * len(work) / sum(work),
    }


# The row of what no router can be better than.
ALONE = "alone"


def alone(requests: Sequence[Request], model: ServiceModel) -> dict[str, float]:
    """What no router can be better than: each request by itself on an idle engine that holds all it ever could."""
    engine = ServiceEngine(replace(model, blocks=10**9))
    now = 0.0
    for request in requests:
        request.arrived = now
        engine.submit(request)
        while engine.busy:
            now += engine.begin()
            step = engine.finish(0.0)
            for spoken in step.first:
                spoken.first = now
            for ended in step.ended:
                ended.ended = now
    return measure(requests, [engine])


def replay(name: str, requests: Sequence[Request], workers: int, model: ServiceModel) -> dict[str, float]:
    """Replay the requests through one router."""
    engines = [ServiceEngine(model) for _ in range(workers)]
    Replay(requests, engines, build(name, engines, model)).run()
    assert all(request.ended for request in requests), "a request was lost"
    return measure(requests, engines)


ROUTERS = (
    "smg_tree",
    "smg_events",
    "llm_d",
    "dynamo",
    "round_robin",
    "power_of_two",
    "least_load",
    "ours",
    "ours_approx",
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path)
    source.add_argument("--unique", type=int, metavar="COUNT", help="so many prompts that share nothing")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[8])
    parser.add_argument("--routers", nargs="+", default=ROUTERS)
    parser.add_argument("--limit", type=int, help="only the first so many requests")
    parser.add_argument("--json", action="store_true", help="a JSON object a line instead of a table")
    options = parser.parse_args(arguments)
    model = ServiceModel()

    def drawn() -> list[Request]:
        if options.unique is not None:
            return unique(options.unique, options.speed)
        return load(options.trace, options.speed, options.limit)

    best = ideal(drawn(), model.block_tokens)
    source_name = "unique" if options.trace is None else options.trace.stem.removeprefix("mooncake_")
    title = f"{source_name} x{options.speed:g}"
    floor = alone(drawn(), model)
    for workers in options.workers:
        scenario = f"{title}, {workers} workers"
        if not options.json:
            print(f"\n{scenario}: ideal reuse {best:.3f}\n")
            print("| router | of ideal | TTFT mean | p50 | p90 | p99 | e2e | imbalance |")
            print("|---|---|---|---|---|---|---|---|")
        for name in (*options.routers, ALONE):
            found = floor
            if name != ALONE:
                found = replay(name, drawn(), workers, model)
            told = json.dumps({"scenario": scenario, "router": name, "ideal": best, **found})
            print(told if options.json else row(name, found, best), flush=True)


def row(name: str, found: Mapping[str, float], best: float) -> str:
    """A row of the table."""
    cells = [f"{found[key]:.2f}" for key in ("mean", "p50", "p90", "p99", "e2e", "imbalance")]
    return f"| {name} | {found['hit'] / best if best else 1:.2f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
