"""How fast the router decides: prompts read and placed, at 64 workers with a million blocks in the index.

    python -m bench.routing_decide

A decision is everything between a turn and the worker it goes to: writing its text down, hashing what is new, who may
take it, looking up who holds how much, pricing all workers, choosing, and noting the choice. What is done when a turn
is over is timed apart. Times are of the CPU: what else runs on the machine is not counted, but for what it drives out
of the processor's caches. The garbage collector runs as it does in a server.

`--told 16` is `--router-tokens engine` with engines that tell of their caches in blocks of 16 tokens: from the answer
that lists a prompt's tokens to its worker, and what it takes to hear what the engine stored of it.
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
from typing import Any, NamedTuple, cast

import msgspec

from app.responses.ports import ModelInfo, RouteKey
from app.routing.approx import RecentBlocks
from app.routing.cache_events import Hearing
from app.routing.fleet import WorkerFleet
from app.routing.index import BlockIndex
from app.routing.kv_events.words import Batch, Stored
from app.routing.ports import World
from app.routing.settings import RoutingSettings
from app.turn.items import Message, Text
from app.turn.request import TurnRequest

_TOKENS_A_TURN = 1000
_CHARS_A_TOKEN = 4
_VOCABULARY = range(150_000)
_KINDS = ("loop", "next", "cold")


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


def reading_secs(new: int, cached: int) -> float:
    """How long an engine takes for `new` tokens behind `cached` ones. All are alike, or they would be told apart."""
    return 0.03 + new * (1e-4 + 2e-9 * (cached + new / 2))


class Took(NamedTuple):
    """Seconds until a turn had its worker, for noting that it is over, and for hearing what the engine stored."""

    decided: float
    over: float
    heard: float


class Gateway:
    """A fleet of so many workers, whose index is filled with prompts nobody asks for."""

    def __init__(self, workers: int, blocks: int, settings: RoutingSettings) -> None:
        self.now = 0.0
        self.tokenized = b""
        world = World(
            probe=cast("Any", None),
            connect=cast("Any", nobody),
            may_retry_elsewhere=lambda _failure: False,
            monotonic=lambda: self.now,
            random=random.Random(1),
            tokenize=self._tokenize,
        )
        fleet = WorkerFleet(settings, world)
        models = (ModelInfo("m", 1, "me"),)
        for worker in fleet.registry.snapshot.workers:
            fleet.registry.put(
                msgspec.structs.replace(worker, healthy=True, healthy_at=-1e6, catalog="listed", models=models)
            )
        self.chooser = fleet.chooser
        self.caches = fleet.desk.caches
        self.workers = [worker.id for worker in fleet.registry.snapshot.workers]
        rng = random.Random(0)
        for worker_id in self.workers:
            for _ in range(blocks // workers // 500):
                self.fill(worker_id, [rng.getrandbits(64) for _ in range(500)])

    async def _tokenize(self, _url: str, _request: TurnRequest) -> bytes:
        return self.tokenized

    def fill(self, worker_id: str, keys: list[int]) -> None:
        """The worker holds these blocks."""
        self.caches.view(worker_id).ended(-1, keys)

    def begin(self, number: int, tokens: int) -> list[Any]:
        """The conversation of that number."""
        return list(conversation(number, tokens))

    def more(self, content: list[Any], words: str) -> None:
        """Something is said."""
        content.append(Message("user", (Text(f"{words} " * 400),)))

    def request(self, content: list[Any]) -> TurnRequest:
        """The turn that asks with all of it."""
        return TurnRequest(model="m", items=tuple(content))

    def hear(self, _worker_id: str) -> float:
        """Seconds to hear what the worker's engine stored of the last turn."""
        return 0.0

    async def decide(self, content: list[Any], run: str | None, conversation: str | None) -> Took:
        """Place a turn, and be done with it."""
        key, request = RouteKey(tenant="t", model="m", run=run, conversation=conversation), self.request(content)
        self.now += 60.0
        began = thread_time()
        prompt = await self.chooser.read(key, request)
        _, placement = self.chooser.place(key, prompt, "m", frozenset())
        decided = thread_time()
        self.now += reading_secs(placement.tokens - placement.cached, placement.cached)
        self.chooser.desk.spoke(placement)
        spoken = thread_time()
        heard = self.hear(placement.worker_id)
        ending = thread_time()
        self.chooser.ended(placement, "good")
        return Took(decided - began, spoken - decided + thread_time() - ending, heard)


class Told(Gateway):
    """Prompts are lists of tokens, and engines tell of their blocks of `size`."""

    def __init__(self, workers: int, blocks: int, size: int) -> None:
        self._size = size
        self._hearings: dict[str, Hearing] = {}
        self._stored: dict[str, set[int]] = {}
        urls = tuple(f"http://worker-{number}:8000" for number in range(workers))
        super().__init__(
            workers, blocks, RoutingSettings(worker_urls=urls, tokens="engine", cache_index_blocks=4 * blocks)
        )

    def fill(self, worker_id: str, keys: list[int]) -> None:
        """The worker holds these blocks."""
        self.caches.tells(worker_id).stored(keys)

    def begin(self, number: int, tokens: int) -> list[Any]:
        """The conversation of that number."""
        return random.Random(number).choices(_VOCABULARY, k=tokens)

    def more(self, content: list[Any], words: str) -> None:
        """Something is said."""
        content.extend(random.Random(words).choices(_VOCABULARY, k=_TOKENS_A_TURN))

    def request(self, content: list[Any]) -> TurnRequest:
        """The turn that asks with all of it."""
        self.tokenized = msgspec.json.encode(content)
        return TurnRequest(model="m", items=())

    def hear(self, worker_id: str) -> float:
        """Seconds to hear what the worker's engine stored of the last turn."""
        hearing = self._hearings.setdefault(worker_id, Hearing(worker_id, self.caches, lambda: self.now))
        stored, size = self._stored.setdefault(worker_id, set()), self._size
        tokens = msgspec.json.decode(self.tokenized, type=list[int])
        names, name = list[int](), 0
        for start in range(0, len(tokens) - size + 1, size):
            name = hash((name, tuple(tokens[start : start + size])))
            names.append(name)
        known = next((place for place, each in enumerate(names) if each not in stored), len(names))
        stored.update(names)
        parent = names[known - 1] if known else None
        batch = Batch((Stored(names[known:], parent, tokens[known * size : len(names) * size], size),))
        began = thread_time()
        hearing.heard(batch)
        return thread_time() - began


async def measure(desk: Gateway, tokens: int, turns: int, kind: str) -> list[Took]:
    """Decisions for one turn after the other of conversations that are `tokens` long.

    `loop`: further turns of one response. `next`: the first turn of a response that goes on from another. `cold`:
    conversations that were never seen.
    """
    times: list[Took] = []
    for number in range(turns):
        content = desk.begin(number % 8 if kind != "cold" else 1000 + number, tokens)
        name = f"{kind}{tokens}-{number}"
        if kind != "cold":
            await desk.decide(content, name, None)
        # Decoded anew, as a request that names a stored response has it.
        again = content if kind != "next" else desk.begin(number % 8, tokens)
        desk.more(again, f"{kind} {number}")
        run, before = (name, None) if kind == "loop" else (f"{name}+", name) if kind == "next" else (name, None)
        times.append(await desk.decide(again, run, before))
    return times


def bytes_a_block(count: int = 1_000_000) -> tuple[float, float]:
    """Memory of a block in the index, and in what is remembered of a worker that does not tell, in prompts of 500."""
    rng = random.Random(1)
    tracemalloc.start()
    index = BlockIndex(2 * count)
    recent = RecentBlocks(index, 0, 2 * count)
    keys = [rng.getrandbits(64) for _ in range(count)]
    before = tracemalloc.get_traced_memory()[0]
    index.store(1, keys)
    middle = tracemalloc.get_traced_memory()[0]
    for start in range(0, count, 500):
        recent.ended(start, keys[start : start + 500])
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # A key is a number of its own: the list above shares it, the gateway's does not.
    return (middle - before) / count + sys.getsizeof(keys[0]), (after - middle) / count


def gateway(options: argparse.Namespace) -> Gateway:
    """The gateway that the options describe."""
    if options.told:
        return Told(options.workers, options.blocks, options.told)
    settings = RoutingSettings(
        worker_urls=tuple(f"http://worker-{number}:8000" for number in range(options.workers)),
        cache_block_bytes=options.block_bytes,
        cache_index_blocks=4 * options.blocks,
        # As much as is filled in: caches are full before long, and from then on what comes displaces something.
        worker_cache_tokens=options.blocks // options.workers // 500 * 500 * options.block_bytes // _CHARS_A_TOKEN,
    )
    return Gateway(options.workers, options.blocks, settings)


async def run(arguments: Sequence[str]) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--block-bytes", type=int, default=512)
    parser.add_argument(
        "--told", type=int, default=0, metavar="TOKENS", help="engines tell of blocks of so many tokens"
    )
    parser.add_argument("--turns", type=int, default=400)
    options = parser.parse_args(arguments)
    index, recent = bytes_a_block()
    print(f"memory: {index:.0f} bytes a block in the index, {recent:.0f} more for each worker that is guessed")
    desk = gateway(options)
    gc.collect()
    gc.freeze()
    size = f"{options.told} tokens" if options.told else f"{options.block_bytes} bytes"
    print(f"{options.workers} workers, {len(desk.caches.index)} blocks in the index, {size} a block\n")
    print("| prompt | decision p50 | p99 | when it is over p50 | what the engine stored p50 |\n|---|---|---|---|---|")
    for kind in _KINDS:
        for tokens in (4_000, 16_000, 128_000):
            times = await measure(desk, tokens, options.turns if tokens < 100_000 else options.turns // 2, kind)
            decided, over, heard = (sorted(column) for column in zip(*times, strict=True))
            half = len(times) // 2
            cells = (decided[half], decided[int(len(times) * 0.99)], over[half], heard[half])
            print(f"| {kind} {tokens // 1000}k | {' | '.join(f'{each * 1e6:.0f} us' for each in cells)} |", flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))
