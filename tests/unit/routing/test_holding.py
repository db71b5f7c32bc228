"""A worker with enough to read is spared: turns wait at the gateway, the shortest first, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec.structs import replace

from app.responses.ports import RouteKey
from app.routing.fleet import WorkerFleet
from app.routing.registry import Worker
from app.turn.events import TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.items import Message, Text
from app.turn.request import TurnRequest
from app.turn.usage import Usage
from tests.unit.routing.fleet_world import FakeWorker, until, world


class Gated(FakeWorker):
    """Speaks only when its gate is open; notes who came."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.came: list[int] = []

    async def stream(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
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
    await until(lambda: worker.served == 1)
    turns += [asyncio.create_task(run(fleet, request(count, mark))) for count, mark in ((300_000, "b"), (4_000, "c"))]
    await until(lambda: fleet.desk.held("http://a") == 2)
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
    await until(lambda: worker.served == 1)
    second = asyncio.create_task(run(fleet, request(300_000, "b")))
    await until(lambda: fleet.desk.held("http://a") == 1)
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
    fleet.drain("http://b")
    first = asyncio.create_task(run(fleet, request(400_000, "a")))
    await until(lambda: gone.served == 1)
    second = asyncio.create_task(run(fleet, request(300_000, "b")))
    await until(lambda: fleet.desk.held("http://a") == 1)
    fleet.registry.put(_ready(fleet, "http://b"))
    fleet.drain("http://a")
    assert isinstance((await second)[-1], TurnDone)
    assert other.came == [300_000]
    gone.gate.set()
    await first


async def test_a_held_turn_with_no_worker_left_fails() -> None:
    worker = Gated()
    fleet = await held_fleet(a=worker)
    first = asyncio.create_task(run(fleet, request(400_000, "a")))
    await until(lambda: worker.served == 1)
    second = asyncio.create_task(run(fleet, request(300_000, "b")))
    await until(lambda: fleet.desk.held("http://a") == 1)
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
