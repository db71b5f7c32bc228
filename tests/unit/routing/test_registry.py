"""What is known of workers, and what is said of it in the log."""

from __future__ import annotations

import logging

import pytest

from tests.unit.routing.fleet_world import FakeWorker, world


async def test_the_log_says_which_workers_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    w = world(a=FakeWorker(models=["m", "n"]), b=FakeWorker(models=None), c=FakeWorker(models=[]))
    fleet = w.fleet()
    with caplog.at_level(logging.INFO, "app.routing"):
        await fleet.ready()
        w.workers["http://a"].up = False
        w.workers["http://c"].models = ["o"]
        w.time += 3600
        for _ in range(9):
            await fleet.ready()
        w.workers["http://a"].refuses = True
        for _ in range(3):
            await fleet.ready()
    assert caplog.messages == [
        "worker http://a is up, with m, n",
        "worker http://b is up, with any model",
        "worker http://c is up, with no model",
        "worker http://c is up, with o",
        "worker http://a is down: down",
        "worker http://a is down: connection refused",
    ]


async def test_adapters_are_known_as_long_as_somebody_serves_them() -> None:
    w = world(a=FakeWorker(models=["m", "x"], adapters=["x"]), b=FakeWorker(models=["m"]))
    registry = (fleet := w.fleet()).registry
    await fleet.ready()
    assert registry.snapshot.adapters == {"x"}
    registry.remove("http://b")
    assert registry.snapshot.adapters == {"x"}
    registry.remove("http://a")
    assert registry.snapshot.adapters == frozenset()
