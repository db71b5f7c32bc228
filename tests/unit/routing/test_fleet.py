"""Leasing, moving and refusing turns."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from app.responses.ports import RouteKey
from app.routing.breaker import Circuit
from app.routing.engine_load import EngineLoad
from app.turn.errors import Conflict, InvalidRequest, NotFound, NoWorker
from app.turn.events import TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.request import TurnRequest
from app.turn.usage import Usage
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, drain, failed, world

KEY = RouteKey(tenant="t", model="m")
REQUEST = TurnRequest(model="m", items=())
ANSWER = [TextDelta("hi"), TurnDone("stop")]


async def run(fleet, key: RouteKey = KEY, request: TurnRequest = REQUEST) -> list[TurnEvent]:
    async with fleet.lease(key, request) as backend:
        return [event async for event in backend.stream(request)]


async def test_turns_are_spread_and_counted():
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet()
    await fleet.ready()
    for _ in range(4):
        assert await run(fleet) == ANSWER
    assert [worker.served for worker in w.workers.values()] == [2, 2]
    async with fleet.lease(KEY, REQUEST):
        assert sum(fleet.inflight(url) for url in w.workers) == 1
    assert sum(fleet.inflight(url) for url in w.workers) == 0


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_turn_that_fails_before_it_speaks_moves_on(status):
    w = world(a=FakeWorker(script=failed(status)), b=FakeWorker())
    fleet = w.fleet()
    await fleet.ready()
    for _ in range(3):
        assert await run(fleet) == ANSWER
    assert w.workers["http://b"].served == 3
    assert sum(fleet.inflight(url) for url in w.workers) == 0
    assert w.workers["http://a"].closed == w.workers["http://a"].served > 0


async def test_a_worker_that_says_nothing_at_all_is_left():
    w = world(a=FakeWorker(script=[]), b=FakeWorker())
    fleet = w.fleet()
    await fleet.ready()
    assert await run(fleet) == ANSWER


async def test_a_turn_that_has_spoken_stays_failed():
    script = [TextDelta("h"), *failed()]
    w = world(a=FakeWorker(script=script), b=FakeWorker(script=script))
    fleet = w.fleet()
    await fleet.ready()
    assert await run(fleet) == script
    assert sum(worker.served for worker in w.workers.values()) == 1


async def test_the_requests_own_fault_is_not_retried():
    w = world(a=FakeWorker(script=failed(400)), b=FakeWorker(script=failed(400)))
    fleet = w.fleet(cb_failure_threshold=1)
    await fleet.ready()
    assert await run(fleet) == failed(400)
    assert sum(worker.served for worker in w.workers.values()) == 1
    assert all(fleet.circuit(url) is Circuit.CLOSED for url in w.workers)


async def test_when_all_fail_the_failure_is_told_after_the_retries():
    w = world(a=FakeWorker(script=failed()), b=FakeWorker(script=failed()))
    fleet = w.fleet(retry_max_retries=3)
    await fleet.ready()
    assert await run(fleet) == failed()
    assert [worker.served for worker in w.workers.values()] == [2, 2]


async def test_a_failing_worker_is_cut_off_and_tried_again_later():
    w = world(a=FakeWorker(script=failed()), b=FakeWorker())
    fleet = w.fleet(cb_failure_threshold=2, cb_success_threshold=1, cb_timeout_duration_secs=60)
    await fleet.ready()
    for _ in range(8):
        assert await run(fleet) == ANSWER
    assert w.workers["http://a"].served == 2
    assert fleet.circuit("http://a") is Circuit.OPEN
    w.workers["http://a"].script = ANSWER
    w.time += 60
    for _ in range(4):
        assert await run(fleet) == ANSWER
    assert fleet.circuit("http://a") is Circuit.CLOSED
    assert w.workers["http://a"].served > 3


async def test_closing_the_stream_early_closes_the_workers_and_blames_nobody():
    w = world(a=FakeWorker())
    fleet = w.fleet(cb_failure_threshold=1)
    await fleet.ready()
    async with fleet.lease(KEY, REQUEST) as backend:
        stream = backend.stream(REQUEST)
        assert await anext(stream) == TextDelta("hi")
        await stream.aclose()
    assert w.workers["http://a"].closed == 1
    assert fleet.circuit("http://a") is Circuit.CLOSED


async def test_a_stream_that_just_stops_is_the_workers_fault():
    w = world(a=FakeWorker(script=[TextDelta("h")]))
    fleet = w.fleet(cb_failure_threshold=1)
    await fleet.ready()
    assert await run(fleet) == [TextDelta("h")]
    assert fleet.circuit("http://a") is Circuit.OPEN


async def test_unknown_model_and_no_worker():
    w = world(a=FakeWorker(models=["m", "n"]), b=FakeWorker(models=["m"], up=False))
    fleet = w.fleet(worker_startup_timeout_secs=10)
    with pytest.raises(NoWorker) as nobody:
        fleet.ensure_model("t", "m")
    assert nobody.value.retry_after
    await fleet.ready()
    fleet.ensure_model("t", "n")
    with pytest.raises(NoWorker):  # b may still turn out to serve it
        fleet.ensure_model("t", "zzz")
    w.time += 10
    with pytest.raises(NotFound) as unknown:
        fleet.ensure_model("t", "zzz")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert [info.id for info in fleet.models("t")] == ["m", "n"]


async def test_only_workers_that_serve_the_model_are_asked():
    w = world(a=FakeWorker(models=["other"]), b=FakeWorker(models=["m"]), c=FakeWorker(models=None))
    fleet = w.fleet()
    await fleet.ready()
    for _ in range(4):
        await run(fleet)
    assert [worker.served for worker in w.workers.values()] == [0, 2, 2]
    await run(fleet, RouteKey(tenant="t", model="zzz"), TurnRequest(model="zzz", items=()))
    assert w.workers["http://c"].served == 3


async def test_a_worker_without_health_is_not_used_until_it_comes():
    w = world(a=FakeWorker(up=False))
    fleet = w.fleet(health_check_interval_secs=0.01)
    await fleet.ready()
    with pytest.raises(NoWorker):
        await run(fleet)
    w.workers["http://a"].up = True
    task = asyncio.create_task(fleet.run())
    await eventually(lambda: fleet.registry.get("http://a").healthy)
    assert await run(fleet) == ANSWER
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_workers_come_and_go_while_it_runs():
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(worker_urls=("http://a",), health_check_interval_secs=0.01)
    task = asyncio.create_task(fleet.run())
    added = await fleet.add("http://b/", api_key="k")
    assert added.healthy
    assert added.id == "http://b"
    with pytest.raises(Conflict):
        await fleet.add("http://b")
    drain(fleet, "http://a")
    await run(fleet)
    await run(fleet)
    assert [worker.served for worker in w.workers.values()] == [0, 2]
    assert w.keys == {"http://b": "k"}
    fleet.remove("http://b")
    with pytest.raises(NoWorker):
        await run(fleet)
    with pytest.raises(NotFound):
        fleet.remove("http://b")
    probes = w.workers["http://b"].probes
    await eventually(lambda: w.workers["http://a"].probes >= 5)
    assert w.workers["http://b"].probes <= probes + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_is_removed_and_comes_back_owes_nothing_to_its_old_turns():
    done = TurnDone("stop", usage=Usage(input_tokens=300, cached_tokens=200))
    w = world(a=FakeWorker(script=[TextDelta("hi"), done]))
    fleet = w.fleet(policy="cache_aware", cb_failure_threshold=1)
    await fleet.ready()
    request = TurnRequest(model="m", items=(), instructions="x" * 2000)
    async with fleet.lease(KEY, request) as first, fleet.lease(KEY, request) as second:
        ended, cut = first.stream(request), second.stream(request)
        assert await anext(ended) == await anext(cut) == TextDelta("hi")
        fleet.remove("http://a")
        await fleet.add("http://a")
        await fleet.ready()
        assert [event async for event in ended] == [done]
        await cut.aclose()
    assert fleet.inflight("http://a") == fleet.desk.inflight("http://a") == 0
    assert fleet.desk.cached_blocks("http://a") == 0
    async with fleet.lease(KEY, request):
        assert fleet.desk.inflight("http://a") == 1


async def test_what_a_removed_worker_still_says_makes_it_not_known_again():
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(policy="cache_aware")
    await fleet.ready()
    request = TurnRequest(model="m", items=(), instructions="x" * 2000)
    key = RouteKey(tenant="t", model="m", target="http://a")
    async with fleet.lease(key, request) as backend:
        fleet.remove("http://a")
        stream = backend.stream(request)
        assert await anext(stream) == TextDelta("hi")
        await stream.aclose()
    fleet._load_told("http://a", EngineLoad(3, 3), 0)
    assert set(fleet.desk.caches.slots) <= {"http://b"}


async def test_a_target_is_used_or_refused():
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet()
    await fleet.ready()
    for _ in range(3):
        await run(fleet, RouteKey(tenant="t", model="m", target="http://b"))
    assert w.workers["http://b"].served == 3
    with pytest.raises(InvalidRequest):
        await run(fleet, RouteKey(tenant="t", model="m", target="http://nobody"))


async def test_a_policy_can_be_a_models_own():
    w = world(a=FakeWorker(models=["m", "n"]), b=FakeWorker(models=["m", "n"]))
    fleet = w.fleet(policy="round_robin", model_policies={"n": "least_load"})
    await fleet.ready()
    async with fleet.lease(KEY, REQUEST):  # a is busy
        for _ in range(3):
            await run(fleet, RouteKey(tenant="t", model="n"), TurnRequest(model="n", items=()))
    assert w.workers["http://b"].served == 3


async def test_a_failure_that_is_told_is_a_turn_failed_not_an_exception():
    w = world(a=FakeWorker(script=failed()))
    fleet = w.fleet(retry_max_retries=0)
    await fleet.ready()
    events = await run(fleet)
    assert len(events) == 1
    assert isinstance(events[0], TurnFailed)


@pytest.mark.parametrize("tokens", ["text", "engine"])
async def test_short_prompts_do_not_all_begin_alike(tokens):
    w = world(**{name: FakeWorker() for name in "abcd"})

    async def tokenize(_url: str, request: TurnRequest, **_: object) -> bytes:
        return msgspec.json.encode(list((request.instructions or "").encode()))

    fleet = w.fleet(policy="prefix_hash", tokens=tokens, tokenize=tokenize)
    await fleet.ready()
    for turn in range(40):
        for _ in range(2):
            await run(fleet, request=TurnRequest(model="m", items=(), instructions=f"{turn}"))
    served = [worker.served for worker in w.workers.values()]
    assert sum(served) == 80
    # Each goes where it went before, and together they go everywhere.
    assert min(served) > 0
    assert all(each % 2 == 0 for each in served)


async def test_a_key_stays_where_it_first_went():
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(policy="manual")
    await fleet.ready()
    for _ in range(4):
        for name in ("x", "y"):
            await run(fleet, RouteKey(tenant="t", model="m", affinity=name))
    assert [worker.served for worker in w.workers.values()] == [4, 4]
    other = RouteKey(tenant="other", model="m", affinity="x")
    async with fleet.lease(RouteKey(tenant="t", model="m", affinity="x"), REQUEST):
        # Another tenant's key of the same name is another key.
        await run(fleet, other)
    drain(fleet, "http://a")
    await run(fleet, RouteKey(tenant="t", model="m", affinity="x"))
    assert sum(worker.served for worker in w.workers.values()) == 10


async def test_a_policy_changes_while_it_runs():
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(policy="passthrough")
    await fleet.ready()
    await run(fleet)
    fleet.chooser.policy = "round_robin"
    for _ in range(4):
        await run(fleet)
    assert [worker.served for worker in w.workers.values()] == [3, 2]
