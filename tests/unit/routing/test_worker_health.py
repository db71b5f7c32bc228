"""What probes mean, and what the monitor writes down."""

from __future__ import annotations

from app.routing.health import Pulse, judge
from app.routing.settings import RoutingSettings
from tests.unit.routing.fleet_world import FakeWorker, world

RULES = RoutingSettings(health_failure_threshold=3, health_success_threshold=2)


def course(*probes: bool) -> list[bool]:
    pulse, healthy, seen = Pulse(), False, []
    for ok in probes:
        pulse, healthy = judge(pulse, ok, healthy, RULES)
        seen.append(healthy)
    return seen


def test_the_first_good_probe_suffices():
    assert course(False, False, True) == [False, False, True]


def test_three_bad_probes_in_a_row_are_needed():
    assert course(True, False, False, True, False, False, False) == [True] * 6 + [False]


def test_coming_back_takes_two_good_ones_in_a_row():
    assert course(True, False, False, False, True, False, True, True)[3:] == [False, False, False, False, True]


async def test_models_are_asked_again_after_the_interval_and_after_a_restart():
    w = world(a=FakeWorker(models=["m"]))
    worker = w.workers["http://a"]
    fleet = w.fleet(model_discovery_interval_secs=60)
    await fleet.ready()
    worker.models = ["n"]
    await fleet.ready()
    assert [info.id for info in fleet.models("t")] == ["m"]
    w.time += 60
    await fleet.ready()
    assert [info.id for info in fleet.models("t")] == ["n"]
    worker.up = False
    await fleet.ready()
    worker.up, worker.models = True, ["o"]
    await fleet.ready()
    assert [info.id for info in fleet.models("t")] == ["o"]


async def test_a_worker_without_a_list_takes_any_model():
    fleet = world(a=FakeWorker(models=None)).fleet()
    await fleet.ready()
    fleet.ensure_model("t", "whatever")
    assert fleet.models("t") == []
