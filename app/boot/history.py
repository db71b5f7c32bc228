"""History at start: its stores, its keys, and what works beside them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct

from app.db.engine import Database
from app.history.events import SqlEventStore
from app.history.runs import SqlRunStore
from app.history.seal import Clear, Sealer
from app.history.store import SqlHistoryStore
from app.history.wakes import Wakes
from app.settings.tree import Settings
from app.turn.ids import IdSource

_log = logging.getLogger(__name__)


class HistoryRoom(Struct, frozen=True):
    """What is open."""

    store: SqlHistoryStore
    events: SqlEventStore
    runs: SqlRunStore
    sealer: Sealer


async def open_history(settings: Settings, database: Database, ids: IdSource, stack: AsyncExitStack) -> HistoryRoom:
    """History on `database`, for as long as the stack is open. Raises `StartError`."""
    sealer = Clear()
    wakes = Wakes(database)
    await in_background(stack, wakes.listen(), "news")
    store = SqlHistoryStore(database, ids, sealer)
    events = SqlEventStore(database, sealer, wakes, settings.history.poll_secs)
    owner = secrets.token_hex(16)
    runs = SqlRunStore(database, store, events, sealer, wakes, settings.history, owner)
    return HistoryRoom(store, events, runs, sealer)


async def in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
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
