"""What engines tell Prometheus, and what becomes of it."""

from __future__ import annotations

import asyncio

import pytest

from app.responses.ports import RouteKey
from app.routing.cachemap import CacheMap
from app.routing.engine_load import EngineLoad, parse
from app.routing.loads import Others
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.turn.request import TurnRequest
from tests.support.waiting import eventually
from tests.unit.routing.fields import a_field
from tests.unit.routing.fleet_world import FakeWorker, world

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a } b"} 3.0
vllm:num_requests_running{engine="1",model_name="a } b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a } b"} 1.0 1764000000000
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="a } b"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a } b"} 0.75
"""
OLDER_VLLM = 'vllm:num_requests_running{model_name="m"} 4\nvllm:gpu_cache_usage_perc{model_name="m"} 0.5\n'
SGLANG = """sglang:num_running_reqs{model_name="m",tp_rank="0"} 7.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 8.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.28
"""
# With metrics of all its processes, two data-parallel ranks of two tensor-parallel ones each.
SGLANG_RANKS = "".join(
    f'sglang:{name}{{dp_rank="{rank // 2}",moe_ep_rank="0",model_name="m",pp_rank="0",tp_rank="{rank}"}} {value}\n'
    for rank in range(4)
    for name, value in (("num_running_reqs", 3 + rank // 2), ("num_queue_reqs", 1), ("token_usage", 0.5))
)
# With priorities: each one's, and the whole, whose priority is empty.
SGLANG_PRIORITIES = """sglang:num_running_reqs{pp_rank="0",priority="",tp_rank="0"} 14.0
sglang:num_running_reqs{pp_rank="0",priority="-1",tp_rank="0"} 4.0
sglang:num_running_reqs{pp_rank="0",priority="0",tp_rank="0"} 10.0
sglang:num_queue_reqs{pp_rank="0",priority="",tp_rank="0"} 2.0
sglang:num_queue_reqs{pp_rank="0",priority="-1",tp_rank="0"} 2.0
"""
TRTLLM = """trtllm_num_requests_running{model_name="m"} 2.0
trtllm_num_requests_waiting{model_name="m"} 1.0
trtllm_kv_cache_utilization{model_name="m"} 0.125
"""
TRITON = """nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="m",request_type="context",version="1"} 50
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 2
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 448
"""


@pytest.mark.parametrize(
    ("said", "load"),
    [
        (VLLM, EngineLoad(5, 1, 0.5)),
        (OLDER_VLLM, EngineLoad(4, 0, 0.5)),
        (SGLANG, EngineLoad(7, 8, 0.28)),
        (SGLANG_RANKS, EngineLoad(7, 2, 0.5)),
        (SGLANG_PRIORITIES, EngineLoad(14, 2)),
        (TRTLLM, EngineLoad(2, 1, 0.125)),
        (TRTLLM.replace("trtllm_", "trtllm:"), EngineLoad(2, 1, 0.125)),
        (TRITON, EngineLoad(2, 1, 0.5)),
        ("vllm:num_requests_running 3", EngineLoad(3, 0)),
        ("vllm:num_requests_running -3\nvllm:kv_cache_usage_perc 7", EngineLoad(0, 0, 1.0)),
        ("vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf", None),
        ("vllm:num_requests_running\nvllm:num_requests_waiting{} many\nvllm:num_requests_waiting{", None),
        ("vllm:kv_cache_usage_perc 0.5", None),
        ('[{"numActiveRequests": 3}]', None),
        ("", None),
    ],
)
def test_each_engine_in_its_own_words(said: str, load: EngineLoad | None) -> None:
    assert parse(said) == load


def said(running: int, waiting: int = 0, memory: float = 0.0) -> str:
    return (
        f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\nvllm:kv_cache_usage_perc {memory}\n"
    )


def a_placer() -> Placer:
    return Placer(CacheMap(capacity=1_000, worker_blocks=1_000), Tuning())


def chosen(placer: Placer, policy: str, now: float) -> str:
    ask = Ask(serial=0, draws=(0.0, 0.5), tokens=900, head=1)
    placement = placer.place(POLICIES[policy], ask, Prompt(keys=range(8), tokens=900), ("a", "b"), now)
    placer.spoke(placement, now)
    placer.ended(placement, now)
    return placement.worker_id


@pytest.mark.parametrize("policy", ["cache_aware", "least_load", "power_of_two"])
def test_a_worker_that_others_keep_busy_is_left_until_its_word_is_old(policy: str) -> None:
    placer = a_placer()
    placer.told("a", EngineLoad(30, 10), own=0, now=5.0, until=11.0)
    placer.told("b", EngineLoad(1, 0), own=0, now=5.0, until=11.0)
    assert chosen(placer, policy, 5.0) == "b"
    placer.caches.view("b").clear()
    assert chosen(placer, policy, 11.0) == "a"


def test_what_was_said_before_counts_half_unless_it_is_old() -> None:
    load = a_placer().load("a")
    load.told(EngineLoad(3, 4), 2, 0.5, now=1.0, until=9.0)
    assert load.others == Others(5, 2.0, 0.0, 9.0)
    load.told(EngineLoad(1, 0), 0, 0.5, now=3.0, until=11.0)
    assert load.others == Others(3, 1.0, 0.0, 11.0)
    load.told(EngineLoad(1, 0), 0, 0.5, now=11.0, until=19.0)
    assert load.others == Others(1, 0.0, 0.0, 19.0)


def test_our_own_turns_are_not_somebody_elses() -> None:
    load = a_placer().load("a")
    for serial in range(5):
        load.sent(serial, 0.1, 0.0)
    load.told(EngineLoad(3, 2), own=5, turn_secs=0.5, now=0.0, until=9.0)
    assert load.others is not None
    assert (load.others.turns, load.others.secs) == (0, 0.0)


def test_least_load_avoids_a_worker_without_memory() -> None:
    assert POLICIES["least_load"](Ask(), a_field(1, 9, memory=[0.97, 0.5])) == 1
    assert POLICIES["least_load"](Ask(), a_field(1, 9, memory=[0.97, 1.0])) == 0


async def test_a_fleet_asks_where_the_metrics_are_and_leaves_those_alone_that_have_none() -> None:
    w = world(
        a=FakeWorker(metrics={"/metrics": said(8)}),
        b=FakeWorker(metrics={"/prometheus/metrics": TRTLLM, "/metrics": "[]"}),
        c=FakeWorker(),
    )
    fleet = w.fleet(load_monitor_interval_secs=0.01, policy="least_load")
    await fleet.ready()
    running = asyncio.create_task(fleet.run())
    try:
        await eventually(lambda: len(w.workers["http://a"].scrapes) > 2 and len(w.workers["http://b"].scrapes) > 3)
        assert [fleet.desk.others(f"http://{name}") for name in "abc"] == [8, 3, 0]
        assert set(w.workers["http://b"].scrapes[2:]) == {"/prometheus/metrics"}
        assert w.workers["http://c"].scrapes == ["/metrics", "/prometheus/metrics"]
        async with fleet.lease(RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=())) as backend:
            assert [fleet.inflight(f"http://{name}") for name in "abc"] == [0, 0, 1]
            del backend
        w.time += 0.04
        assert fleet.desk.others("http://a") == 0
        w.time += 60
        await eventually(lambda: len(w.workers["http://c"].scrapes) > 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nobody_is_asked_where_it_was_not_wanted_or_is_down() -> None:
    w = world(a=FakeWorker(metrics={"/metrics": said(8)}))
    fleet = w.fleet()
    await fleet.ready()
    running = asyncio.create_task(fleet.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert w.workers["http://a"].scrapes == []
