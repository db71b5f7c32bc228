"""The workers: the clients that reach them, the fleet that leases them, and the task that looks after them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

from app.backends.errors import may_retry_elsewhere
from app.backends.workers import Workers
from app.boot.listening import is_loopback
from app.routing.fleet import WorkerFleet
from app.routing.ports import Seen, World
from app.settings.tree import Settings
from app.turn.ids import IdSource

_log = logging.getLogger(__name__)


async def open_fleet(
    settings: Settings, stack: AsyncExitStack, ids: IdSource, seen: Callable[[Seen], None]
) -> WorkerFleet:
    """The workers, each probed once, and looked after until the stack closes."""
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
        seen=seen,
    )
    fleet = WorkerFleet(settings.routing, world)
    await fleet.ready()
    await _in_background(stack, fleet.run(), "watching the workers")
    return fleet


def workers_api(settings: Settings) -> bool:
    """Whether workers may be changed from outside: unless decided, only where nobody but this machine gets in."""
    wanted = settings.routing.workers_api
    return is_loopback(settings.server.host) if wanted is None else wanted


async def _in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
    """Run `work` until the stack closes. It is not meant to end before; when it does, that is logged."""
    task = asyncio.create_task(work, name=name)

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled():
            _log.critical("%s ended", name, exc_info=done.exception())

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task.add_done_callback(ended)
    stack.push_async_callback(end)
