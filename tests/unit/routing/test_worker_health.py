"""What probes mean, and what the monitor writes down."""

from __future__ import annotations

from app.routing.admin import FleetAdmin
from app.routing.health import Finding, Pulse, judge
from app.routing.settings import RoutingSettings
from tests.unit.routing.fleet_world import FakeWorker, world

RULES = RoutingSettings(health_failure_threshold=3, health_success_threshold=2)


def course(*found: Finding) -> list[bool]:
    pulse, healthy, seen = Pulse(), False, []
    for each in found:
        pulse, healthy = judge(pulse, each, healthy, RULES)
        seen.append(healthy)
    return seen


def test_the_first_good_probe_suffices():
    assert course("bad", "late", "good") == [False, False, True]


def test_three_bad_probes_in_a_row_are_needed():
    assert course("good", "bad", "late", "good", "bad", "late", "bad") == [True] * 6 + [False]


def test_coming_back_takes_two_good_ones_in_a_row():
    assert course("good", *["bad"] * 3, "good", "bad", "good", "good")[3:] == [False, False, False, False, True]


def test_a_busy_worker_stays_what_it_was():
    assert course("good", *["busy"] * 9) == [True] * 10
    assert course("good", "late", "busy", "late", "busy", "late") == [True] * 5 + [False]
    assert course("good", *["late"] * 3, "busy", "good", "busy", "good")[3:] == [False, False, False, False, True]


def test_one_that_was_not_there_for_a_moment_is_known_to_have_been_gone():
    pulse = Pulse(reached=True)
    for found, gone in (("late", False), ("bad", True), ("late", True), ("good", False)):
        pulse, _ = judge(pulse, found, True, RULES)
        assert pulse.gone is gone


async def test_what_is_wrong_is_known_until_all_is_well():
    w = world(a=FakeWorker(up=False), b=FakeWorker(models=[]))
    one = w.workers["http://a"]
    fleet = w.fleet(health_failure_threshold=2, health_success_threshold=2, health_check_timeout_secs=0.05)
    admin = FleetAdmin(fleet)

    async def seen() -> tuple[str, str | None]:
        await fleet.ready()
        view = admin.worker("http://a")
        return view.status, view.reason

    silent = "The worker did not answer its probe within 0.05 seconds."
    assert await seen() == ("pending", "down")
    assert admin.worker("http://b").reason == "The worker lists no models."
    one.late = True
    assert await seen() == ("pending", silent)
    one.up, one.late = True, False
    assert await seen() == ("ready", None)
    one.late = True
    assert await seen() == ("ready", silent)
    assert await seen() == ("not_ready", silent)
    one.late = False
    # It has to convince yet.
    assert await seen() == ("not_ready", silent)
    assert await seen() == ("ready", None)


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
