"""Settings in, a working gateway out: every room built once, connected to the others, and closed in reverse."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from app.api.services import Services, Status
from app.boot.database import open_database
from app.boot.fleet import open_fleet, workers_api
from app.boot.history import in_background, open_history
from app.boot.metered import MeteredFleet, count_cached, count_call, count_response
from app.boot.world import SystemClock
from app.mcp.executor import McpExecutor
from app.responses.foreman import Foreman, both
from app.responses.ports import Ports
from app.responses.runs import Runs
from app.responses.service import Responses
from app.routing.admin import FleetAdmin
from app.routing.fleet import WorkerFleet
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics
from app.turn.ids import RandomIds

# Two may fail before anybody else takes the runs over.
RENEWALS_A_LEASE = 3


class Rooms(Struct, frozen=True):
    """What is open. `drain(seconds)` ends all runs, giving them that long to do so by themselves."""

    services: Services
    drain: Callable[[float], Awaitable[None]]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Rooms, None]:
    """All rooms, for as long as the block lasts. Raises `StartError`."""
    metrics, runs, ids = Metrics(), Runs(), RandomIds()
    async with AsyncExitStack() as stack:
        database = await open_database(settings)
        stack.push_async_callback(database.close)
        history = await open_history(settings, database, ids, stack)
        fleet = await open_fleet(settings, stack, ids, count_cached(metrics))
        tools = McpExecutor(settings.mcp, observe=count_call(metrics))
        stack.push_async_callback(tools.close)
        ports = Ports(
            fleet=MeteredFleet(fleet, metrics),
            tools=tools,
            history=history.store,
            runs=history.runs,
            events=history.events,
            clock=SystemClock(),
            ids=ids,
        )
        responses = Responses(ports, runs, settings.responses, count_response(metrics))
        lease, poll = settings.history.lease_secs, settings.history.poll_secs
        foreman = Foreman(
            ports, runs, responses.maker, settings.responses, renew_secs=lease / RENEWALS_A_LEASE, poll_secs=poll
        )
        await in_background(stack, both(foreman), "foreman")
        # Runs use everything above, so they end first.
        stack.push_async_callback(runs.drain, 0)
        metrics.watch_runs(runs.__len__)
        metrics.watch_workers(lambda: _workers(fleet))
        services = Services(
            responses=responses,
            models=fleet.models,
            status=lambda: _status(runs, fleet),
            metrics=metrics,
            max_body=settings.server.max_payload_size,
            keepalive_secs=settings.responses.keepalive_secs,
            access_log=settings.server.access_log,
            fleet=FleetAdmin(fleet) if workers_api(settings) else None,
        )
        yield Rooms(services, runs.drain)


def _workers(fleet: WorkerFleet) -> tuple[int, int]:
    workers = fleet.registry.snapshot.workers
    return sum(worker.healthy and not worker.draining for worker in workers), len(workers)


def _status(runs: Runs, fleet: WorkerFleet) -> Status:
    healthy, total = _workers(fleet)
    return Status(draining=runs.draining, healthy_workers=healthy, workers=total, runs=len(runs))
