"""How fast the router decides: prompts read and placed, at 64 workers with a million blocks in the index.

    python -m bench.routing_decide

A decision is everything between a turn and the worker it goes to: writing its text down, hashing what is new, looking
up who holds how much, pricing all workers, choosing, and noting the choice. What is done when a turn is over is timed
apart. Times are of the CPU: what else runs on the machine is not counted.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tracemalloc
from collections.abc import Sequence
from time import thread_time

from app.routing.approx import RecentBlocks
from app.routing.cachemap import CacheMap
from app.routing.index import BlockIndex
from app.routing.placer import Placer, Tuning
from app.routing.policies import POLICIES, Ask
from app.routing.prompts import PromptBook
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


class Desk:
    """A placer over so many workers, whose index is filled with prompts nobody asks for."""

    def __init__(self, workers: int, blocks: int, block_bytes: int) -> None:
        self.ids = [f"http://worker-{number}" for number in range(workers)]
        caches = CacheMap(capacity=4 * blocks, worker_blocks=2 * blocks // workers + 100_000)
        self.placer = Placer(caches, Tuning())
        self.book = PromptBook(block_bytes=block_bytes)
        rng = random.Random(0)
        for worker_id in self.ids:
            view = caches.view(worker_id)
            for _ in range(blocks // workers // 500):
                view.sent([rng.getrandbits(64) for _ in range(500)], 0)
        self.serial = 0

    def decide(self, request: TurnRequest, run: str | None, conversation: str | None) -> tuple[float, float]:
        """Seconds until the turn has its worker, and seconds of what is noted when it is over."""
        began = thread_time()
        prompt = self.book.read(request, run=run, conversation=conversation)
        self.serial += 1
        ask = Ask(serial=self.serial, draws=(0.5, 0.5), tokens=prompt.tokens, head=prompt.keys[0] if prompt.keys else 0)
        now = float(self.serial)
        placement = self.placer.place(POLICIES["cache_aware"], ask, prompt, self.ids, now, hold=False)
        decided = thread_time()
        self.placer.spoke(placement, now + 0.1)
        self.placer.ended(placement, now + 0.2)
        return decided - began, thread_time() - decided


def measure(desk: Desk, tokens: int, turns: int, kind: str) -> list[tuple[float, float]]:
    """Decisions for one turn after the other of conversations that are `tokens` long.

    `loop`: further turns of one response. `next`: the first turn of a response that goes on from another. `cold`:
    conversations that were never seen.
    """
    times: list[tuple[float, float]] = []
    for number in range(turns):
        items = conversation(number % 8 if kind != "cold" else 1000 + number, tokens)
        name = f"{kind}{tokens}-{number}"
        if kind != "cold":
            desk.decide(TurnRequest(model="m", items=tuple(items)), name, None)
        # Decoded anew, as a request that names a stored response has it.
        again = items if kind != "next" else conversation(number % 8, tokens)
        again.append(Message("user", (Text(f"turn {number} " * 400),)))
        run, before = (name, None) if kind == "loop" else (f"{name}+", name) if kind == "next" else (name, None)
        times.append(desk.decide(TurnRequest(model="m", items=tuple(again)), run, before))
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
    recent.touch(keys)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # A key is a number of its own: the list above shares it, the gateway's does not.
    return (middle - before) / count + sys.getsizeof(keys[0]), (after - middle) / count


def main(arguments: Sequence[str]) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--block-bytes", type=int, default=512)
    parser.add_argument("--turns", type=int, default=400)
    options = parser.parse_args(arguments)
    index, recent = bytes_a_block()
    print(f"memory: {index:.0f} bytes a block in the index, {recent:.0f} more for each worker that is guessed")
    desk = Desk(options.workers, options.blocks, options.block_bytes)
    gc.collect()
    gc.freeze()
    print(f"{options.workers} workers, {len(desk.placer.caches.index)} blocks, {options.block_bytes} bytes a block\n")
    print("| prompt | decision p50 | p99 | when it is over p50 |\n|---|---|---|---|")
    for kind in ("loop", "next", "cold"):
        for tokens in (4_000, 16_000, 128_000):
            times = measure(desk, tokens, options.turns if tokens < 100_000 else options.turns // 2, kind)
            decided, over = sorted(first for first, _ in times), sorted(second for _, second in times)
            cells = (decided[len(times) // 2], decided[int(len(times) * 0.99)], over[len(times) // 2])
            print(f"| {kind} {tokens // 1000}k | {' | '.join(f'{each * 1e6:.0f} us' for each in cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
