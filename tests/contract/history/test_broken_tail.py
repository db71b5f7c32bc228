"""What comes after something that could not be written is not written either, however soon the database is back."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.db.engine import Database, with_driver
from app.db.settings import DatabaseSettings
from app.history.events import SqlEventStore
from app.history.runs import SqlRunStore
from app.history.seal import Clear
from app.history.settings import HistorySettings
from app.history.store import SqlHistoryStore
from app.history.wakes import Wakes
from app.responses.ports import Entry, Event, NewRun
from app.turn.errors import GatewayError, Unavailable
from app.turn.events import TextDelta
from app.turn.ids import RandomIds
from tests.contract.history.test_runs_contract import events


class Unlocking:
    """A `Witness` who lets the database go as soon as it hears that nothing can be written."""

    def __init__(self, lock: sqlite3.Connection) -> None:
        self._lock = lock
        self.told: list[Event] = []

    def durable(self, events: Sequence[Event]) -> None:
        self.told += events

    def broken(self, error: GatewayError) -> None:
        assert isinstance(error, Unavailable)
        self._lock.execute("ROLLBACK")


async def test_a_log_has_no_holes(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), DatabaseSettings(sqlite_busy_timeout_secs=0.02))
    wakes, clear = Wakes(database), Clear()
    store = SqlHistoryStore(database, RandomIds(), clear)
    log = SqlEventStore(database, clear, wakes, 0.05)
    settings = HistorySettings(commit_interval_ms=0, patience_secs=0.3)
    runs = SqlRunStore(database, store, log, clear, wakes, settings, uuid.uuid4().hex)
    start = Entry((), tuple(events(0, 2)))
    run = NewRun(tenant=tenant, response_id="resp_1", background=True, created_at=1, request=b"-")
    lease = await runs.begin(run, start, waiting=False)
    lock = sqlite3.connect(sqlite_path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    watching = Unlocking(lock)
    tail = runs.tail(lease, (start,), watching)
    (second, third, fourth) = events(2, 5)
    tail.put(TextDelta("a"), [second])
    waiting = asyncio.create_task(tail.flush())
    # A turn of the loop at a time: by the clock, it may have failed by then.
    while not tail.busy:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(0)
    # It is being written; this waits for the next time.
    tail.put(TextDelta("b"), [third])
    with pytest.raises(Unavailable):
        await waiting
    tail.put(TextDelta("c"), [fourth])
    with pytest.raises(Unavailable):
        await tail.flush()
    await asyncio.sleep(0.2)
    assert watching.told == []
    assert list(await log.told(tenant, "resp_1")) == events(0, 2)
    lock.close()
    await database.close()
