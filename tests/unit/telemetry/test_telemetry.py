"""Log lines with their request, secrets that stay secret, and metrics that read what they are told to."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from app.telemetry import logs
from app.telemetry.metrics import Metrics
from app.telemetry.secret import Secret


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_json_lines(root: logging.Logger) -> None:
    out = io.StringIO()
    logs.configure("info", as_json=True, stream=out)
    token = logs.request_id.set("req_1")
    logging.getLogger("room").info("hello %s", "you", extra={"status": 200})
    logging.getLogger("room").debug("too quiet")
    logs.request_id.reset(token)
    try:
        int("oops")
    except ValueError:
        logging.getLogger("room").exception("broken")
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "info", "logger": "room", "message": "hello you", "request_id": "req_1", "status": 200}
    assert "ValueError: invalid literal" in second["exception"]
    assert "request_id" not in second


def test_lines_for_people(root: logging.Logger) -> None:
    out = io.StringIO()
    logs.configure("warning", as_json=False, stream=out)
    logging.getLogger("room").info("too quiet")
    logging.getLogger("room").warning("look", extra={"status": 500})
    assert out.getvalue().rstrip().endswith("WARNING room: look status=500")
    assert len(out.getvalue().splitlines()) == 1


def test_a_secret_is_not_shown() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r}"
    assert secret.reveal() == "hunter2"
    assert repr(Secret("hunter2", "env:KEY")) == "Secret('env:KEY')"
    assert secret == Secret("hunter2")
    assert secret != Secret("other")


def test_gauges_read_when_scraped() -> None:
    metrics = Metrics()
    runs = [1]
    metrics.watch_runs(lambda: len(runs))
    metrics.watch_workers(lambda: (1, 2))
    runs.append(2)
    text = generate_latest(metrics.registry).decode()
    assert "shepherd_runs_active 2.0" in text
    assert 'shepherd_workers{state="healthy"} 1.0' in text
    assert 'shepherd_workers{state="total"} 2.0' in text
