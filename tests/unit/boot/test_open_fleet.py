"""Workers that are named in the settings and cannot be: said at once, and where."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.boot.discovery import discover
from app.boot.fleet import open_fleet
from app.routing.settings import RoutingSettings
from app.settings.sources import SettingsError
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics
from app.turn.ids import RandomIds
from tests.unit.routing.fleet_world import world

HERE = ("http://127.0.0.1:1",)


@pytest.mark.parametrize(
    ("routing", "name"),
    [
        ({"worker_urls": ("http://",)}, "worker_urls"),
        ({"worker_urls": (*HERE, "http://127.0.0.1:1/v1")}, "worker_urls"),
        ({"worker_urls": HERE, "kv_events": ("tcp://*:5557",)}, "kv_events"),
        ({"worker_urls": HERE, "kv_events": ("tcp://h:1", "tcp://h:2")}, "kv_events"),
    ],
)
async def test_what_cannot_be_a_worker_is_a_wrong_setting(routing: dict[str, Any], name: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=rf"routing\.{name}: "):
            await open_fleet(Settings(routing=RoutingSettings(**routing)), stack, RandomIds(), Metrics())


async def test_nor_is_a_name_that_is_none() -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=r"routing\.discover_dns: "):
            await discover(RoutingSettings(discover_dns="http://"), world().fleet(), stack)
