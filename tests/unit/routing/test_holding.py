"""A worker with enough to read is spared: turns wait at the gateway, the shortest first, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec.structs import replace

from app.responses.ports import RouteKey
from app.routing.cachemap import CacheMap
from app.routing.fleet import WorkerFleet
from app.routing.loads import Placement
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.routing.registry import Worker
from app.turn.events import Hear, TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.items import Message, Text
from app.turn.request import TurnRequest
from app.turn.usage import Usage
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, drain, world


class Gated(FakeWorker):
    """Speaks only when its gate is open; notes who came."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.came: list[int] = []

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        self.served += 1
        self.came.append(size(request))
        await self.gate.wait()
        yield TextDelta("hi")
        yield TurnDone("stop", Usage(size(request) // 4, 0, 1))


def request(size: int, mark: str = "x") -> TurnRequest:
    return TurnRequest(model="m", items=(Message("user", (Text(mark * size),)),))


def size(request: TurnRequest) -> int:
    return len(request.items[0].text)  # type: ignore[union-attr]


async def run(fleet: WorkerFleet, asked: TurnRequest) -> list[TurnEvent]:
    async with fleet.lease(RouteKey(tenant="t", model="m"), asked) as backend:
        return [event async for event in backend.stream(asked)]


async def held_fleet(**workers: Gated) -> WorkerFleet:
    fleet = world(**workers).fleet(policy="cache_aware")
    await fleet.ready()
    return fleet


async def test_long_prompts_wait_and_the_shortest_goes_first() -> None:
    worker = Gated()
    fleet = await held_fleet(a=worker)
    turns = [asyncio.create_task(run(fleet, request(400_000, "a")))]
    await eventually(lambda: worker.served == 1)
    turns += [asyncio.create_task(run(fleet, request(count, mark))) for count, mark in ((300_000, "b"), (4_000, "c"))]
    await eventually(lambda: fleet.desk.held("http://a") == 2)
    assert worker.served == 1
    worker.gate.set()
    results = await asyncio.gather(*turns)
    assert worker.came == [400_000, 4_000, 300_000]
    assert all(isinstance(events[-1], TurnDone) for events in results)
    assert fleet.desk.held("http://a") == fleet.desk.inflight("http://a") == fleet.inflight("http://a") == 0


async def test_a_held_turn_that_is_given_up_is_forgotten() -> None:
    worker = Gated()
    fleet = await held_fleet(a=worker)
    first = asyncio.create_task(run(fleet, request(400_000, "a")))
    await eventually(lambda: worker.served == 1)
    second = asyncio.create_task(run(fleet, request(300_000, "b")))
    await eventually(lambda: fleet.desk.held("http://a") == 1)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert fleet.desk.held("http://a") == 0
    worker.gate.set()
    await first
    assert worker.served == 1
    assert fleet.inflight("http://a") == 0


async def test_what_waits_for_a_lost_worker_goes_elsewhere() -> None:
    gone, other = Gated(), Gated()
    fleet = await held_fleet(a=gone, b=other)
    other.gate.set()
    drain(fleet, "http://b")
    first = asyncio.create_task(run(fleet, request(400_000, "a")))
    await eventually(lambda: gone.served == 1)
    second = asyncio.create_task(run(fleet, request(300_000, "b")))
    await eventually(lambda: fleet.desk.held("http://a") == 1)
    fleet.registry.put(_ready(fleet, "http://b"))
    drain(fleet, "http://a")
    assert isinstance((await second)[-1], TurnDone)
    assert other.came == [300_000]
    gone.gate.set()
    await first


async def test_a_held_turn_with_no_worker_left_fails() -> None:
    worker = Gated()
    fleet = await held_fleet(a=worker)
    first = asyncio.create_task(run(fleet, request(400_000, "a")))
    await eventually(lambda: worker.served == 1)
    second = asyncio.create_task(run(fleet, request(300_000, "b")))
    await eventually(lambda: fleet.desk.held("http://a") == 1)
    fleet.remove("http://a")
    (last,) = await second
    assert isinstance(last, TurnFailed)
    assert last.failure.status == 503
    worker.gate.set()
    assert isinstance((await first)[-1], TurnDone)


async def test_a_conversation_stays_where_its_prefix_is() -> None:
    workers = {name: Gated() for name in "abcd"}
    for worker in workers.values():
        worker.gate.set()
    fleet = await held_fleet(**workers)
    for text in ("p" * 20_000, "q" * 20_000):
        homes = set[str]()
        for turn in range(6):
            before = {name: worker.served for name, worker in workers.items()}
            await run(fleet, request(20_000 + 300 * turn, text[0]))
            homes |= {name for name, worker in workers.items() if worker.served > before[name]}
        assert len(homes) == 1


def _ready(fleet: WorkerFleet, worker_id: str) -> Worker:
    return replace(fleet.registry.get(worker_id), draining=False)


async def test_a_worker_that_is_done_takes_over_what_is_held_for_another() -> None:
    a, b = Gated(), Gated()
    fleet = await held_fleet(a=a, b=b)
    turns = [asyncio.create_task(run(fleet, request(400_000, "a")))]
    await eventually(lambda: a.served + b.served == 1)
    turns.append(asyncio.create_task(run(fleet, request(300_000, "b"))))
    await eventually(lambda: a.served == b.served == 1)
    first, second = (a, b) if a.came == [400_000] else (b, a)
    turns.append(asyncio.create_task(run(fleet, request(350_000, "c"))))
    # It waits for the one that has less to read; but the other one is done first.
    await eventually(lambda: sum(fleet.desk.held(url) for url in ("http://a", "http://b")) == 1)
    first.gate.set()
    await eventually(lambda: first.served == 2)
    assert first.came == [400_000, 350_000]
    second.gate.set()
    await asyncio.gather(*turns)
    assert second.came == [300_000]
    assert [(fleet.inflight(url), fleet.desk.held(url)) for url in ("http://a", "http://b")] == [(0, 0), (0, 0)]


def test_what_is_taken_over_keeps_its_place_and_is_taken_over_once() -> None:
    placer = Placer(CacheMap(capacity=1_000, worker_blocks=1_000), Tuning())

    def place(policy: str, serial: int, tokens: int, now: float, since: float | None = None) -> Placement:
        ask = Ask(serial=serial, draws=(0.0, 0.0), tokens=tokens, head=serial, since=since)
        return placer.place(POLICIES[policy], ask, Prompt(tokens=tokens), ("a", "b"), now)

    place("passthrough", 0, 100_000, 0.0)
    held = [place("passthrough", number, 50_000 + number, 0.0) for number in (1, 2)]
    placer.load("b")
    assert placer.spare(1.0) is held[0]
    assert (len(placer.load("a").held), held[0].sent_at) == (1, None)
    again = place("cache_aware", 1, 50_001, 1.0, since=held[0].arrived)
    assert (again.worker_id, again.sent_at, again.arrived, again.moved) == ("b", 1.0, 0.0, True)
    # Nobody is idle now.
    assert placer.spare(1.0) is None
    placer.spoke(again, 2.0)
    placer.ended(again, 2.0)
    assert placer.spare(2.0) is held[1]
    place("passthrough", 2, 50_002, 2.0, since=held[1].arrived)
    assert placer.spare(2.0) is None


def test_what_another_would_have_to_read_anew_is_left() -> None:
    placer = Placer(CacheMap(capacity=10_000, worker_blocks=10_000), Tuning())
    keys = range(1, 2001)
    placer.caches.view("a").sent(-1, keys, 0)
    placer.load("b")
    for serial in range(2):
        ask = Ask(serial=serial, draws=(0.0, 0.0), tokens=128_200, head=1)
        prompt = Prompt(keys=() if not serial else keys, tokens=6_000 if not serial else 128_200, block_tokens=64.0)
        placer.place(POLICIES["passthrough"], ask, prompt, ("a", "b"), 0.0)
    assert len(placer.load("a").held) == 1
    assert placer.spare(0.0) is None


def test_what_may_not_be_taken_over_is_passed_over() -> None:
    placer = Placer(CacheMap(capacity=1_000, worker_blocks=1_000), Tuning())

    def place(serial: int, tokens: int, since: float | None = None) -> Placement:
        ask = Ask(serial=serial, tokens=tokens, head=serial, since=since)
        return placer.place(POLICIES["passthrough"], ask, Prompt(tokens=tokens), ("a", "b"), 0.0)

    place(0, 100_000)
    # The first of those that wait was taken over before.
    place(1, 50_000, since=0.0)
    other = place(2, 60_000)
    placer.load("b")
    assert placer.spare(0.0) is other
    assert placer.spare(0.0) is None
