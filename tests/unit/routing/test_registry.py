"""What is known of workers, and what is said of it in the log."""

from __future__ import annotations

import logging

import pytest

from tests.unit.routing.fleet_world import FakeWorker, world


async def test_the_log_says_which_workers_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    w = world(a=FakeWorker(models=["m", "n"]), b=FakeWorker(models=None))
    fleet = w.fleet()
    with caplog.at_level(logging.INFO, "app.routing"):
        await fleet.ready()
        w.workers["http://a"].up = False
        for _ in range(4):
            await fleet.ready()
    told = ["worker http://a is up, with m, n", "worker http://b is up, with any model", "worker http://a is down"]
    assert caplog.messages == told
