"""Replays request traces through the router in simulated time.

    python -m bench.routing --trace conversation.jsonl --speed 1.8 --workers 8
    python -m bench.routing --unique 2500 --speed 2 --workers 8
    python -m bench.routing --toolagent --speed 3 --workers 8
    python -m bench.routing --agents 48 --workers 8

The trace format is Mooncake's: a JSON object a line with `timestamp` (ms), `input_length`, `output_length` (tokens) and
`hash_ids`, one id for each block of 512 prompt tokens, equal leading ids meaning a shared prefix. Our router is the
gateway's own placer; the others are our reading of their algorithms. The engines are a service model, not GPUs.

`--toolagent` (`bench/toolagent.py`) and `--agents` (`bench/sessions.py`) are generated to published statistics. Of
agents so many sessions are alive at once, in a closed loop: a turn comes when the one before has its answer and the
pause is over. What is measured are all turns of the first `--sessions` ones; `--speed` shortens the pauses.

`--jitter SEED` asks for everything up to a tenth of a second later: what differs then between two routers or versions
by no more than between two seeds is chance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from app.simulator.service import Request, ServiceEngine, ServiceModel
from bench.crowd import Crowd, one_by_one
from bench.routing_peers import PEERS, Ours, Router, Several
from bench.routing_replay import Replay
from bench.sessions import RECORDED, hurried, session, statistics
from bench.toolagent import toolagent


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
        seen.update(request.after)
    return hit / total


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
    return {**measure(requests, engines), "rate": len(requests) / max(request.ended for request in requests)}


def replay_crowd(name: str, crowd: Crowd, workers: int, model: ServiceModel) -> dict[str, float]:
    """Let the sessions live behind one router; of its counted ones, what became of their turns."""
    engines = [ServiceEngine(model) for _ in range(workers)]
    Replay(crowd.begin(), engines, build(name, engines, model), crowd.ended).run()
    assert all(request.ended for request in crowd.counted), "a turn was lost"
    return {**measure(crowd.counted, engines), "rate": crowd.rate}


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


class Source(Struct, frozen=True):
    """What is asked: its `requests` by themselves, and `run`, which asks a router of that name and so many workers.
    `known`: what is to be said of it."""

    title: str
    requests: Callable[[], list[Request]]
    run: Callable[[str, int], dict[str, float]]
    known: Mapping[str, float] = {}


def lateness(seed: int | None) -> Callable[[], float]:
    """How many seconds later than planned each request comes: none without a seed, else up to a tenth."""
    rng = random.Random(seed)
    return (lambda: 0.0) if seed is None else (lambda: rng.uniform(0.0, 0.1))


def trace(options: argparse.Namespace, model: ServiceModel) -> Source:
    """Requests that come when they come."""

    def planned() -> list[Request]:
        if options.unique is not None:
            return unique(options.unique, options.speed)
        if options.toolagent:
            return toolagent(options.speed, model.block_tokens)[: options.limit]
        return load(options.trace, options.speed, options.limit)

    def drawn() -> list[Request]:
        late, requests = lateness(options.jitter), planned()
        for request in requests:
            request.arrived += late()
        return requests

    name = "toolagent" if options.toolagent else "unique"
    if options.trace is not None:
        name = options.trace.stem.removeprefix("mooncake_")
    return Source(f"{name} x{options.speed:g}", drawn, lambda router, workers: replay(router, drawn(), workers, model))


def agents(options: argparse.Namespace, model: ServiceModel) -> Source:
    """Sessions that wait for their answers."""
    live, counted = options.agents, options.sessions or 3 * options.agents
    habits = hurried(RECORDED, options.speed)
    sessions = [session(number, habits) for number in range(counted)]

    def run(router: str, workers: int) -> dict[str, float]:
        late = lateness(options.jitter)
        crowd = Crowd(lambda number: session(number, habits), live, counted, model.block_tokens, late)
        return replay_crowd(router, crowd, workers, model)

    speed = "" if options.speed == 1 else f" x{options.speed:g}"
    return Source(f"agents {live}{speed}", lambda: one_by_one(sessions, model.block_tokens), run, statistics(sessions))


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path)
    source.add_argument("--unique", type=int, metavar="COUNT", help="so many prompts that share nothing")
    source.add_argument("--toolagent", action="store_true", help="generated requests of agents with shared prompts")
    source.add_argument("--agents", type=int, metavar="LIVE", help="so many generated sessions alive at once")
    parser.add_argument("--sessions", type=int, help="how many of them are measured (three times as many as live)")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[8])
    parser.add_argument("--cache-tokens", type=int, default=1_228_800, help="of each worker")
    parser.add_argument("--routers", nargs="+", default=ROUTERS)
    parser.add_argument("--limit", type=int, help="only the first so many requests")
    parser.add_argument("--jitter", type=int, metavar="SEED", help="ask for everything a little later, by chance")
    parser.add_argument("--json", action="store_true", help="a JSON object a line instead of a table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Replay what is asked for through all the routers."""
    options = read(arguments)
    model = replace(ServiceModel(), blocks=options.cache_tokens // ServiceModel().block_tokens)
    source = agents(options, model) if options.agents else trace(options, model)
    best, floor = ideal(source.requests(), model.block_tokens), alone(source.requests(), model)
    if source.known:
        told = "; ".join(f"{key} {value:,.6g}" for key, value in source.known.items())
        print(f"{source.title}, generated: {told}", file=sys.stderr, flush=True)
    caches = "" if model == ServiceModel() else f", {options.cache_tokens / 1e6:.1f}M tokens each"
    shifted = "" if options.jitter is None else f", jitter {options.jitter}"
    for workers in options.workers:
        scenario = f"{source.title}, {workers} workers{caches}{shifted}"
        if not options.json:
            print(f"\n{scenario}: ideal reuse {best:.3f}\n")
            print("| router | of ideal | TTFT mean | p50 | p90 | p99 | e2e | imbalance | requests/s |")
            print("|---|---|---|---|---|---|---|---|---|")
        for name in (*options.routers, ALONE):
            found = floor if name == ALONE else source.run(name, workers)
            told = json.dumps({"scenario": scenario, "router": name, "ideal": best, **found})
            print(told if options.json else row(name, found, best), flush=True)


def row(name: str, found: Mapping[str, float], best: float) -> str:
    """A row of the table."""
    cells = [f"{found[key]:.2f}" for key in ("mean", "p50", "p90", "p99", "e2e")]
    cells += [f"{found['imbalance']:.2f}", f"{found['rate']:.2f}" if "rate" in found else "-"]
    return f"| {name} | {found['hit'] / best if best else 1:.2f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
