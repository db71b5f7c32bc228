"""The workers: the clients that reach them, the fleet that leases them, and the task that looks after them."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from time import monotonic

from app.backends.errors import may_retry_elsewhere
from app.backends.workers import Workers
from app.boot.background import in_background
from app.boot.discovery import discover
from app.boot.metered import count_cached, count_parts
from app.routing.admin import FleetAdmin
from app.routing.fleet import WorkerFleet
from app.routing.ports import World
from app.routing.settings import RoutingSettings
from app.settings.sources import SettingsError
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics
from app.turn.errors import GatewayError
from app.turn.ids import IdSource


async def open_fleet(settings: Settings, stack: AsyncExitStack, ids: IdSource, metrics: Metrics) -> WorkerFleet:
    """The workers, each probed once, and looked after until the stack closes. Raises `SettingsError`."""
    backends = Workers(settings.backends, ids)
    stack.push_async_callback(backends.close)

    def key_of(url: str) -> str | None:
        worker = fleet.registry.snapshot.get(url)
        return None if worker is None else worker.api_key

    world = World(
        probe=backends.probe(key_of),
        connect=backends.connect,
        may_retry_elsewhere=may_retry_elsewhere,
        monotonic=monotonic,
        random=random.Random(),  # noqa: S311 - it spreads load, it keeps no secrets
        seen=count_cached(metrics),
        parted=count_parts(metrics),
        tokenize=backends.tokenize,
    )
    fleet = _fleet(settings.routing, world)
    await fleet.ready()
    await in_background(stack, fleet.run(), "watching the workers")
    await discover(settings.routing, fleet, stack)
    return fleet


def _fleet(settings: RoutingSettings, world: World) -> WorkerFleet:
    if len(settings.kv_events) > len(settings.worker_urls):
        raise SettingsError("routing.kv_events: there are more addresses than worker_urls")
    try:
        return WorkerFleet(settings, world)
    except GatewayError as error:
        name = "kv_events" if error.param == "kv_events" else "worker_urls"
        raise SettingsError(f"routing.{name}: {error.message}") from error


def count_workers(fleet: WorkerFleet) -> tuple[int, int]:
    """How many workers may be given turns, and how many are known."""
    workers = fleet.registry.snapshot.workers
    return sum(worker.healthy and not worker.draining for worker in workers), len(workers)


def admin_of(fleet: WorkerFleet, settings: Settings, *, needs_no_key: bool) -> FleetAdmin | None:
    """What changes the fleet from outside: unless decided, only where no key is needed, so that no tenant has one."""
    wanted = settings.routing.workers_api
    return FleetAdmin(fleet) if (needs_no_key if wanted is None else wanted) else None
