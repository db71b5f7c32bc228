"""Settings in, a working gateway out: every room built once, connected to the others, and closed in reverse."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from app.api.services import Services, Status
from app.boot.administering import Shared
from app.boot.database import open_database
from app.boot.desk import open_desk
from app.boot.fleet import admin_of, count_workers, open_fleet
from app.boot.foreman import open_responses
from app.boot.history import open_history
from app.boot.metered import MeteredFleet, count_response
from app.boot.sealing import open_sealer
from app.boot.tenants import open_gate
from app.boot.tools import open_tools
from app.boot.world import SystemClock
from app.responses.ports import Ports
from app.responses.runs import Runs
from app.settings.tree import Settings
from app.telemetry.metrics import Metrics
from app.turn.ids import RandomIds


class Rooms(Struct, frozen=True):
    """What is open. `drain(seconds)` ends all runs, giving them that long to do so by themselves."""

    services: Services
    drain: Callable[[float], Awaitable[None]]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Rooms, None]:
    """All rooms, for as long as the block lasts. Raises `StartError`."""
    metrics, runs, ids, clock = Metrics(), Runs(), RandomIds(), SystemClock()
    async with AsyncExitStack() as stack:
        database = await open_database(settings)
        stack.push_async_callback(database.close)
        history = await open_history(settings, database, ids, stack)
        fleet = await open_fleet(settings, stack, ids, metrics)
        gate = await open_gate(database, settings, ids, clock)
        needs_no_key = await gate.is_open()
        shared = Shared(database=database, keyring=history.keyring, clock=clock, ids=ids, needs_no_key=needs_no_key)
        tools = await open_tools(settings, shared, metrics, stack)
        ports = Ports(
            fleet=MeteredFleet(fleet, metrics),
            tools=tools.executor,
            approvals=tools.waiting.approvals,
            elicitations=tools.waiting.elicitations,
            sealer=open_sealer(settings, history.keyring),
            history=history.store,
            conversations=history.kept.conversations,
            prompts=history.kept.prompts,
            runs=history.runs,
            events=history.events,
            clock=clock,
            ids=ids,
        )
        responses = await open_responses(settings, ports, runs, count_response(metrics), stack)
        # Runs use everything above, so they end first.
        stack.push_async_callback(runs.drain, 0)
        metrics.watch_runs(runs.__len__)
        metrics.watch_workers(lambda: count_workers(fleet))
        services = Services(
            gate=gate,
            responses=responses,
            models=fleet.models,
            status=lambda: _status(runs, count_workers(fleet)),
            metrics=metrics,
            max_body=settings.server.max_payload_size,
            keepalive_secs=settings.responses.keepalive_secs,
            padded=settings.responses.obfuscation,
            access_log=settings.server.access_log,
            socket_secs=settings.responses.socket_secs,
            socket_bounds=settings.responses.socket_bounds,
            admin=tools.admin,
            fleet=admin_of(fleet, settings, needs_no_key=needs_no_key),
            mcp=tools.serve,
            ids=ids,
            desk=open_desk(settings, ports, runs, responses, history.kept, fleet, stack),
        )
        yield Rooms(services, runs.drain)


def _status(runs: Runs, workers: tuple[int, int]) -> Status:
    healthy, total = workers
    return Status(draining=runs.draining, healthy_workers=healthy, workers=total, runs=len(runs))
