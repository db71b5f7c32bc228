"""Turns of which nobody sees anything before they are over: one that breaks in the middle is made again."""

from __future__ import annotations

from app.responses.ports import RouteKey
from app.routing.breaker import Circuit
from app.turn.events import TextDelta, TurnDone, TurnEvent
from app.turn.request import TurnRequest
from tests.unit.routing.fleet_world import FakeWorker, failed, world

WHOLE = RouteKey(tenant="t", model="m", whole=True)
REQUEST = TurnRequest(model="m", items=())
ANSWER = [TextDelta("hi"), TurnDone("stop")]


async def run(fleet, key: RouteKey = WHOLE) -> list[TurnEvent]:
    async with fleet.lease(key, REQUEST) as backend:
        return [event async for event in backend.stream(REQUEST)]


async def test_it_is_made_again_elsewhere_and_nothing_is_said_twice() -> None:
    w = world(a=FakeWorker(script=[TextDelta("h"), TextDelta("e"), *failed()]), b=FakeWorker())
    fleet = w.fleet(policy="passthrough", cb_failure_threshold=1)
    await fleet.ready()
    assert await run(fleet) == ANSWER
    assert [worker.served for worker in w.workers.values()] == [1, 1]
    # It is the worker's failure all the same.
    assert fleet.circuit("http://a") is Circuit.OPEN
    assert all(fleet.inflight(url) == 0 for url in w.workers)


async def test_one_that_just_stops_is_made_again() -> None:
    w = world(a=FakeWorker(script=[TextDelta("h")]), b=FakeWorker())
    fleet = w.fleet(policy="passthrough")
    await fleet.ready()
    assert await run(fleet) == ANSWER


async def test_when_all_fail_what_the_last_one_said_is_told_with_the_failure() -> None:
    w = world(a=FakeWorker(script=[TextDelta("a"), *failed()]), b=FakeWorker(script=[TextDelta("b"), *failed()]))
    fleet = w.fleet(policy="passthrough", retry_max_retries=1)
    await fleet.ready()
    assert await run(fleet) == [TextDelta("b"), *failed()]
    assert [worker.served for worker in w.workers.values()] == [1, 1]


async def test_the_requests_own_fault_is_not_made_again() -> None:
    w = world(a=FakeWorker(script=[TextDelta("h"), *failed(400)]), b=FakeWorker())
    fleet = w.fleet(policy="passthrough")
    await fleet.ready()
    assert await run(fleet) == [TextDelta("h"), *failed(400)]
    assert w.workers["http://b"].served == 0
