"""How fast the router decides: prompts read and placed, at 64 workers with a million blocks in the index.

    python -m bench.routing_decide

A decision is everything between a turn and the worker it goes to: writing its text down, hashing what is new, who may
take it, looking up who holds how much, pricing all workers, choosing, and noting the choice. What is done when a turn
is over is timed apart. Times are of the CPU: what else runs on the machine is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import tracemalloc
from collections.abc import Sequence
from time import thread_time
from typing import Any, cast

from msgspec.structs import replace

from app.responses.ports import ModelInfo, RouteKey
from app.routing.approx import RecentBlocks
from app.routing.fleet import WorkerFleet
from app.routing.index import BlockIndex
from app.routing.ports import World
from app.routing.settings import RoutingSettings
from app.turn.items import Message, Text
from app.turn.request import TurnRequest

_TOKENS_A_TURN = 1000
_CHARS_A_TOKEN = 4


def conversation(number: int, tokens: int) -> list[Message]:
    """Messages of so many tokens in all, like no other conversation's."""
    rng = random.Random(number)
    words = [f"{rng.getrandbits(40):x} " for _ in range(997)]
    size = _TOKENS_A_TURN * _CHARS_A_TOKEN

    def message(place: int) -> Message:
        text = "".join(words[(place + index * 7) % 997] for index in range(size // 9))
        return Message("user" if place % 2 else "assistant", (Text(text[:size]),))

    return [message(place) for place in range(max(tokens // _TOKENS_A_TURN, 1))]


async def nobody(*_: object) -> None:
    """Stands for what a decision does not ask."""
    raise AssertionError("a decision asks no worker")


class Gateway:
    """A fleet of so many workers, whose index is filled with prompts nobody asks for."""

    def __init__(self, workers: int, blocks: int, block_bytes: int) -> None:
        self.now = 0.0
        settings = RoutingSettings(
            worker_urls=tuple(f"http://worker-{number}:8000" for number in range(workers)),
            cache_block_bytes=block_bytes,
            cache_index_blocks=4 * blocks,
            worker_cache_tokens=(2 * blocks // workers + 100_000) * block_bytes,
        )
        world = World(
            probe=cast("Any", None),
            connect=cast("Any", nobody),
            may_retry_elsewhere=lambda _failure: False,
            monotonic=lambda: self.now,
            random=random.Random(1),
        )
        fleet = WorkerFleet(settings, world)
        models = (ModelInfo("m", 1, "me"),)
        for worker in fleet.registry.snapshot.workers:
            fleet.registry.put(replace(worker, healthy=True, healthy_at=-1e6, catalog="listed", models=models))
        self.chooser = fleet.chooser
        self.caches = fleet.desk.caches
        rng = random.Random(0)
        for worker in fleet.registry.snapshot.workers:
            view = self.caches.view(worker.id)
            for _ in range(blocks // workers // 500):
                keys = [rng.getrandbits(64) for _ in range(500)]
                view.ended(-1, keys)

    async def decide(self, request: TurnRequest, run: str | None, conversation: str | None) -> tuple[float, float]:
        """Seconds until the turn has its worker, and seconds of what is noted when it is over."""
        key = RouteKey(tenant="t", model="m", run=run, conversation=conversation)
        self.now += 60.0
        began = thread_time()
        prompt = await self.chooser.read(key, request)
        _, placement = self.chooser.place(key, prompt, "m", frozenset())
        decided = thread_time()
        self.now += 0.1
        self.chooser.desk.spoke(placement)
        self.chooser.ended(placement, "good")
        return decided - began, thread_time() - decided


async def measure(desk: Gateway, tokens: int, turns: int, kind: str) -> list[tuple[float, float]]:
    """Decisions for one turn after the other of conversations that are `tokens` long.

    `loop`: further turns of one response. `next`: the first turn of a response that goes on from another. `cold`:
    conversations that were never seen.
    """
    times: list[tuple[float, float]] = []
    for number in range(turns):
        items = conversation(number % 8 if kind != "cold" else 1000 + number, tokens)
        name = f"{kind}{tokens}-{number}"
        if kind != "cold":
            await desk.decide(TurnRequest(model="m", items=tuple(items)), name, None)
        # Decoded anew, as a request that names a stored response has it.
        again = items if kind != "next" else conversation(number % 8, tokens)
        again.append(Message("user", (Text(f"{kind} {number} " * 400),)))
        run, before = (name, None) if kind == "loop" else (f"{name}+", name) if kind == "next" else (name, None)
        times.append(await desk.decide(TurnRequest(model="m", items=tuple(again)), run, before))
    return times


def bytes_a_block(count: int = 1_000_000) -> tuple[float, float]:
    """Memory of a block in the index, and in the list of a worker that does not tell."""
    rng = random.Random(1)
    tracemalloc.start()
    index = BlockIndex(2 * count)
    recent = RecentBlocks(index, 0, 2 * count)
    keys = [rng.getrandbits(64) for _ in range(count)]
    before = tracemalloc.get_traced_memory()[0]
    index.store(1, keys)
    middle = tracemalloc.get_traced_memory()[0]
    for start in range(0, count, 500):
        recent.leave(start, keys[start : start + 500])
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # A key is a number of its own: the list above shares it, the gateway's does not.
    return (middle - before) / count + sys.getsizeof(keys[0]), (after - middle) / count


async def run(arguments: Sequence[str]) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--block-bytes", type=int, default=512)
    parser.add_argument("--turns", type=int, default=400)
    options = parser.parse_args(arguments)
    index, recent = bytes_a_block()
    print(f"memory: {index:.0f} bytes a block in the index, {recent:.0f} more for each worker that is guessed")
    desk = Gateway(options.workers, options.blocks, options.block_bytes)
    gc.collect()
    gc.freeze()
    print(f"{options.workers} workers, {len(desk.caches.index)} blocks, {options.block_bytes} bytes a block\n")
    print("| prompt | decision p50 | p99 | when it is over p50 |\n|---|---|---|---|")
    for kind in ("loop", "next", "cold"):
        for tokens in (4_000, 16_000, 128_000):
            times = await measure(desk, tokens, options.turns if tokens < 100_000 else options.turns // 2, kind)
            decided, over = sorted(first for first, _ in times), sorted(second for _, second in times)
            cells = (decided[len(times) // 2], decided[int(len(times) * 0.99)], over[len(times) // 2])
            print(f"| {kind} {tokens // 1000}k | {' | '.join(f'{each * 1e6:.0f} us' for each in cells)} |", flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))
