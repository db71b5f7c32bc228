"""History at start: its stores, its keys, and what works beside them."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from time import monotonic

from msgspec import Struct

from app.boot.background import in_background
from app.boot.kept import Kept, keep
from app.boot.keys import open_keyring
from app.boot.world import SystemClock
from app.db.engine import Database
from app.history.events import SqlEventStore
from app.history.keyring import Keyring
from app.history.opened import OpenedContexts
from app.history.runs import SqlRunStore
from app.history.store import SqlHistoryStore
from app.history.sweeper import Sweeper, sweep_once
from app.history.wakes import Wakes
from app.mcp.tables import approvals
from app.settings.tree import Settings
from app.turn.ids import IdSource

# Logs without a response are rare, and looking for them is not free.
SWEEPS_FOR_LOGS = 60


class HistoryRoom(Struct, frozen=True):
    """What is open. `keyring` is for secrets: it seals whatever the settings say of content."""

    store: SqlHistoryStore
    events: SqlEventStore
    runs: SqlRunStore
    keyring: Keyring
    kept: Kept


async def open_history(settings: Settings, database: Database, ids: IdSource, stack: AsyncExitStack) -> HistoryRoom:
    """History on `database`, for as long as the stack is open. Raises `StartError`."""
    sealer = await open_keyring(settings, database)
    secrets_too = sealer if settings.history.encrypt else await open_keyring(settings, database, secrets=True)
    wakes = Wakes(database)
    await in_background(stack, wakes.listen(), "news")
    held = settings.history.opened_bytes
    opened = OpenedContexts(held, settings.history.opened_secs, monotonic) if held else None
    store = SqlHistoryStore(database, ids, sealer, opened)
    events = SqlEventStore(database, sealer, wakes, settings.history.poll_secs, settings.history.patience_secs)
    owner = secrets.token_hex(16)
    runs = SqlRunStore(database, store, events, sealer, wakes, settings.history, owner)
    kept = await keep(database, ids, sealer, stack, SystemClock().now, settings.history.sweep_secs, opened)
    sweeper = Sweeper(database, store, kept.conversations, SystemClock().now, (approvals,))
    await in_background(stack, _sweep(sweeper, settings.history.sweep_secs), "sweeper")
    return HistoryRoom(store, events, runs, secrets_too, kept)


async def _sweep(sweeper: Sweeper, every: float) -> None:
    rounds = 0
    while True:
        await sweep_once(sweeper, logs=rounds % SWEEPS_FOR_LOGS == 0)
        rounds += 1
        await asyncio.sleep(every)
