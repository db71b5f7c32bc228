"""Writes the logs of all runs of this process, what they say in one moment together.

Theory of operation
-------------------
A commit costs the same for one event as for a hundred, and a model says a token every few milliseconds to each of
many runs. So a run does not write: it puts what happened into its tail and goes on, and one writer takes what all tails
hold, commits it, and only then lets the runs tell their clients. What can be lost in a crash is therefore what nobody
was told. The first event after a pause is written at once; in a stream, the writer waits a moment between two commits.
Who must not wait (a tool is about to be called) says so with `flush`.

A group begins by reading, and locking against takeover, the rows of its runs. A run whose fence is not ours any more
drops out of the group: somebody else writes that log now.

A commit that fails is tried again for as long as patience lasts, with the same entries at the same positions. Whether
the lost attempt came to pass does not matter: an entry that is already there is left as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import bindparam, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import Database
from app.history import entries
from app.history.errors import unavailable
from app.history.seal import Sealer
from app.history.tables import runs
from app.history.wakes import Wakes
from app.responses.ports import Entry, Event, Lease, LeaseLost, StoredResponse, Witness
from app.turn.errors import GatewayError, Unavailable
from app.turn.events import InEvent

_log = logging.getLogger(__name__)

_FULL: Final = 1024
_PAUSE_SECS: Final = 0.1

# (tenant, id, fence) of the runs of a group, held so that nobody takes them over before the commit.
FENCES: Final = (
    select(runs.c.tenant, runs.c.id, runs.c.fence)
    .where(tuple_(runs.c.tenant, runs.c.id).in_(bindparam("keys", expanding=True)))
    .with_for_update(read=True)
)


class Taken(Struct, frozen=True):
    """What a tail held when the writer came by."""

    tail: JournalTail
    position: int
    last: int
    entry: Entry
    waiting: tuple[asyncio.Future[None], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.entry.steps or self.entry.events)

    @property
    def key(self) -> tuple[str, str, int]:
        """The run and the fence under which it writes."""
        lease = self.tail.lease
        return lease.tenant, lease.response_id, lease.fence


Conclude: TypeAlias = Callable[[Taken, StoredResponse | None], Awaitable[None]]


class JournalTail:
    """Where one run writes. The journal is the only one who takes from it, until the run is concluded."""

    def __init__(
        self, journal: Journal, lease: Lease, position: int, last: int, witness: Witness, conclude: Conclude
    ) -> None:
        self.lease = lease
        self.position = position
        self.last = last
        self.fault: GatewayError | None = None
        self._journal = journal
        self._witness = witness
        self._conclude = conclude
        self._steps: list[InEvent] = []
        self._events: list[Event] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._in_flight = False
        self._landed = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether it is time to wait for the writer."""
        return len(self._steps) + len(self._events) >= _FULL

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        """Add to what the writer will take next."""
        if self.fault is not None:
            return
        if step is not None:
            self._steps.append(step)
        self._events += events
        self._journal.visit(self, hurry=False)

    async def flush(self) -> None:
        """Wait until all of it is durable. Raises `Unavailable`, `LeaseLost`."""
        if self.fault is None and (self._steps or self._events or self._in_flight):
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(done)
            self._journal.visit(self, hurry=True)
            await done
        if self.fault is not None:
            raise self.fault

    async def conclude(self, events: Sequence[Event], response: StoredResponse | None) -> None:
        """Write the rest, these events and the response, all or nothing. Raises `Unavailable`, `LeaseLost`."""
        while self._in_flight:
            await self._landed.wait()
        if self.fault is not None:
            raise self.fault
        self._events += events
        taken = self.take()
        try:
            await self._conclude(taken, response)
        except (LeaseLost, Unavailable) as error:
            self.settle(taken, error)
            raise
        except BaseException:
            # The run is still ours, and so is what it said before this.
            self._in_flight = False
            self._landed.set()
            self._steps = list(taken.entry.steps)
            self._events = list(taken.entry.events[: len(taken.entry.events) - len(events)])
            raise
        self.settle(taken, None)

    def take(self) -> Taken:
        """Everything it holds. The journal comes again for the rest."""
        self._in_flight = True
        self._landed.clear()
        entry = Entry(tuple(self._steps), tuple(self._events))
        last = entry.events[-1].sequence_number if entry.events else self.last
        taken = Taken(self, self.position, last, entry, tuple(self._waiting))
        self._steps, self._events, self._waiting = [], [], []
        return taken

    def settle(self, taken: Taken, fault: GatewayError | None) -> None:
        """What was taken is durable, or never will be."""
        self._in_flight = False
        self._landed.set()
        if fault is None:
            if not taken.empty:
                self.position, self.last = taken.position + 1, taken.last
                self._witness.durable(taken.entry.events)
        elif self.fault is None:
            self.fault = fault
            self._witness.broken(fault)
        for waiting in (*taken.waiting, *(self._waiting if fault is not None else ())):
            if not waiting.done():
                waiting.set_result(None)

    @property
    def busy(self) -> bool:
        """Whether something of it is being written."""
        return self._in_flight


class Journal:
    """The writer. `interval` and `patience` are in seconds."""

    def __init__(self, database: Database, sealer: Sealer, wakes: Wakes, *, interval: float, patience: float) -> None:
        self._database = database
        self._sealer = sealer
        self._wakes = wakes
        self._interval = interval
        self._patience = patience
        self._add = entries.add_entries(is_sqlite=database.is_sqlite)
        self._to_visit: dict[JournalTail, None] = {}
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_commit = 0.0
        self.commits = 0

    def visit(self, tail: JournalTail, *, hurry: bool) -> None:
        """Come by and take what the tail holds: soon, or without waiting for others."""
        self._to_visit[tail] = None
        if hurry:
            self._hurry.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="journal")

    async def _work(self) -> None:
        while self._to_visit:
            await self._linger()
            # A tail that is being concluded writes by itself.
            group = [tail.take() for tail in self._to_visit if not tail.busy]
            self._to_visit = {}
            try:
                await self._commit(group)
            except BaseException:
                self._settle(group, unavailable())
                raise

    async def _linger(self) -> None:
        pause = self._last_commit + self._interval - asyncio.get_running_loop().time()
        if pause > 0 and not self._hurry.is_set():
            try:
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            except TimeoutError:
                pass
        self._hurry.clear()

    async def _commit(self, group: Sequence[Taken]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        written = [taken for taken in group if not taken.empty]
        self._settle([taken for taken in group if taken.empty], None)
        while written:
            try:
                ours = await self._write(written)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                _log.warning("the journal cannot be written: %s", type(error).__name__)
                if loop.time() >= deadline:
                    self._settle(written, unavailable())
                    return
                await asyncio.sleep(_PAUSE_SECS)
                continue
            self._last_commit = loop.time()
            self.commits += 1
            for taken in written:
                self._settle([taken], None if taken.key in ours else lost())
            self._wakes.wake(taken.tail.lease.response_id for taken in written)
            return

    async def _write(self, group: Sequence[Taken]) -> set[tuple[str, str, int]]:
        """Commit the group; the runs that are still ours."""
        async with self._database.writing() as connection:
            keys = [(taken.tail.lease.tenant, taken.tail.lease.response_id) for taken in group]
            found = await connection.execute(FENCES, {"keys": keys})
            ours = {(row.tenant, row.id, row.fence) for row in found}
            rows = [row_of(self._sealer, taken) for taken in group if taken.key in ours]
            if rows:
                await connection.execute(self._add, rows)
                await self._wakes.note(connection, [row["response_id"] for row in rows])
        return ours

    def _settle(self, group: Sequence[Taken], fault: GatewayError | None) -> None:
        for taken in group:
            taken.tail.settle(taken, fault)


def row_of(sealer: Sealer, taken: Taken) -> dict[str, Any]:
    """What was taken, as a row of `entries`."""
    return entry_row(sealer, taken.tail.lease, taken.position, taken.last, taken.entry)


def entry_row(sealer: Sealer, lease: Lease, position: int, last: int, entry: Entry) -> dict[str, Any]:
    """An entry as a row of `entries`; `last` is the number of the last event told by then."""
    return {
        "tenant": lease.tenant,
        "response_id": lease.response_id,
        "position": position,
        "sequence_number": last,
        "body": sealer.seal(lease.tenant, entries.place(lease.response_id, position), entries.pack(entry)),
    }


def lost() -> LeaseLost:
    """Somebody else makes the response now."""
    return LeaseLost("Another server has taken this response over.")
