"""Simulated workers whose settings cannot be had together are not begun."""

from __future__ import annotations

from typing import Any

import pytest

from app.boot.listening import StartError, Stop
from app.boot.simulate import check, simulate
from app.simulator.settings import SimulatorSettings

EVENTS: dict[str, Any] = {"engine": "batch", "kv_events": "tcp://127.0.0.1:5557"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kv_events": "tcp://127.0.0.1:5557"},
        {"engine": "batch", "kv_replay": "tcp://127.0.0.1:5557"},
        {"port": 65533, "fleet": 8},
        {**EVENTS, "fleet": 2, "kv_events": "ipc:///tmp/kv"},
        {**EVENTS, "fleet": 2, "kv_replay": "tcp://127.0.0.1:65535"},
    ],
)
async def test_what_cannot_be_had_together_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(StartError):
        await simulate(SimulatorSettings(**wrong), Stop())


@pytest.mark.parametrize(
    "right",
    [
        {"port": 65528, "fleet": 8},
        {"port": 0, "fleet": 8},
        {**EVENTS, "fleet": 8, "kv_replay": "tcp://127.0.0.1:5657"},
        {**EVENTS, "fleet": 2, "kv_events": "tcp://127.0.0.1:*"},
        {**EVENTS, "kv_events": "ipc:///tmp/kv"},
    ],
)
def test_what_can_is_begun(right: dict[str, Any]) -> None:
    check(SimulatorSettings(**right))
