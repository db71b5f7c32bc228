"""Writes the logs of all runs of this process, what they say in one moment together.

Theory of operation
-------------------
A commit costs the same for one event as for a hundred, and a model says a token every few milliseconds to each of
many runs. So a run does not write: it puts what happened into its tail and goes on, and one writer takes what all tails
hold, commits it, and only then lets the runs tell their clients. What can be lost in a crash is therefore what nobody
was told. What a model says after a pause is written at once; in a stream, the writer waits a moment between two
commits, and what comes of tools waits a moment for what the model makes of it.
Who must not wait (a tool is about to be called) says so with `flush`.

What rides in a run's ledger is written in the transaction of its next entry, and never causes one by itself. It tells
of what this process did, so it is written for a run that somebody else has taken over, too.

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

from msgspec import Struct, json
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import Database
from app.db.prepared import Prepared
from app.history import entries
from app.history.errors import unavailable
from app.history.run_statements import FENCE, FENCES, FENCES_TOLD
from app.history.seal import Sealer
from app.history.tables import runs
from app.history.wakes import Wakes, notice
from app.responses.ledger import Rider
from app.responses.ports import Entry, Event, Lease, LeaseLost, StoredResponse, Witness
from app.turn.errors import GatewayError, Unavailable
from app.turn.events import InEvent, ReasoningDelta, TextDelta, ToolReturned, ToolsListed

_log = logging.getLogger(__name__)

_FULL: Final = 1024
# What the next model turn follows on, soon or at length.
_OF_TOOLS: Final = (ToolReturned, ToolsListed)
_PAUSE_SECS: Final = 0.1


class Taken(Struct, frozen=True):
    """What a tail held when the writer came by."""

    tail: JournalTail
    position: int
    last: int
    entry: Entry
    riders: tuple[Rider, ...]
    waiting: tuple[asyncio.Future[None], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.entry.steps or self.entry.events or self.riders)

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
        self._riders: list[Rider] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._over = False
        self._silent = True
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
        if step is None or isinstance(step, _OF_TOOLS):
            self._journal.visit_later(self)
            return
        # What a model says first is waited for.
        first = self._silent and isinstance(step, TextDelta | ReasoningDelta)
        self._silent = self._silent and not first
        self._journal.visit(self, hurry=first)

    def ride(self, rider: Rider) -> bool:
        """See `Ledger`. Nobody hurries for it: the step that it is about comes next."""
        if self._over or self.fault is not None:
            return False
        self._riders.append(rider)
        return True

    async def flush(self) -> None:
        """Wait until all of it is durable. Raises `Unavailable`, `LeaseLost`."""
        if self.fault is None and (self._steps or self._events or self._riders or self._in_flight):
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
        except LeaseLost as error:
            self._journal.carry(taken.riders)
            self.settle(taken, error)
            raise
        except Unavailable as error:
            self.settle(taken, error)
            raise
        except BaseException:
            # The run is still ours, and so is what it said before this.
            self._in_flight = False
            self._landed.set()
            self._steps = list(taken.entry.steps)
            self._events = list(taken.entry.events[: len(taken.entry.events) - len(events)])
            self._riders = [*taken.riders, *self._riders]
            raise
        self._over = True
        self.settle(taken, None)

    @staticmethod
    def _lose(riders: Sequence[Rider], why: GatewayError) -> None:
        for rider in riders:
            rider.lost(why)

    def take(self) -> Taken:
        """Everything it holds. The journal comes again for the rest."""
        self._in_flight = True
        self._landed.clear()
        entry = Entry(tuple(self._steps), tuple(self._events))
        last = entry.events[-1].sequence_number if entry.events else self.last
        taken = Taken(self, self.position, last, entry, tuple(self._riders), tuple(self._waiting))
        self._steps, self._events, self._riders, self._waiting = [], [], [], []
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
            # What came after something that was not written must not be written either.
            self._steps, self._events = [], []
            self._give_up(taken, fault)
            self._witness.broken(fault)
        for waiting in (*taken.waiting, *(self._waiting if fault is not None else ())):
            if not waiting.done():
                waiting.set_result(None)

    def _give_up(self, taken: Taken, fault: GatewayError) -> None:
        """See to what rides. Of a run that is another's now, what was taken is written already."""
        if isinstance(fault, LeaseLost):
            self._journal.carry(self._riders)
        else:
            self._lose((*taken.riders, *self._riders), fault)
        self._riders = []

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
        self._fences = FENCES if database.is_sqlite else FENCES.add_columns(notice(runs.c.id))
        self._fence = Prepared(FENCE if database.is_sqlite else FENCE.add_columns(notice(runs.c.id)))
        self._to_visit: dict[JournalTail, None] = {}
        self._strays: list[Rider] = []
        self._later: dict[JournalTail, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False
        self._nap: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_commit = 0.0
        self.commits = 0

    def visit(self, tail: JournalTail, *, hurry: bool) -> None:
        """Come by and take what the tail holds: soon, or without waiting for others."""
        self._to_visit[tail] = None
        if hurry:
            self._hurried = True
            self._wake_up()
        self._start()

    def visit_later(self, tail: JournalTail) -> None:
        """Come by when the moment is over, unless somebody makes it come by before."""
        self._later[tail] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._now)

    def _now(self) -> None:
        later, self._later, self._timer = self._later, {}, None
        for tail in later:
            self.visit(tail, hurry=False)

    def carry(self, riders: Sequence[Rider]) -> None:
        """Write what rode with a run that is another's now."""
        self._strays += riders
        if self._strays:
            self._start()

    def began(self) -> None:
        """A run has begun, with a commit of its own. What it says next can wait for what comes soon after."""
        self._last_commit = asyncio.get_running_loop().time()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="journal")

    async def _work(self) -> None:
        while self._to_visit or self._strays:
            await self._linger()
            # A tail that is being concluded writes by itself; of one that is broken nothing is written any more.
            group = [tail.take() for tail in self._to_visit if not tail.busy and tail.fault is None]
            strays = tuple(self._strays)
            self._to_visit, self._strays = {}, []
            try:
                await self._commit(group, strays)
            except BaseException:
                self._fail(group, strays)
                raise

    async def _linger(self) -> None:
        loop = asyncio.get_running_loop()
        pause = self._last_commit + self._interval - loop.time()
        if pause > 0 and not self._hurried:
            self._nap = loop.create_future()
            timer = loop.call_later(pause, self._wake_up)
            try:
                await self._nap
            finally:
                timer.cancel()
                self._nap = None
        self._hurried = False

    def _wake_up(self) -> None:
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)

    async def _commit(self, group: Sequence[Taken], strays: Sequence[Rider]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        written = [taken for taken in group if not taken.empty]
        self._settle([taken for taken in group if taken.empty], None)
        again = False
        while written or strays:
            try:
                ours = await self._write(written, strays, again=again)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                _log.warning("the journal cannot be written: %s", type(error).__name__)
                if loop.time() >= deadline:
                    self._fail(written, strays)
                    return
                again = True
                await asyncio.sleep(_PAUSE_SECS)
                continue
            self._last_commit = loop.time()
            self.commits += 1
            for taken in written:
                self._settle([taken], None if taken.key in ours else lost())
            self._wakes.wake(taken.tail.lease.response_id for taken in written)
            return

    async def _write(
        self, group: Sequence[Taken], strays: Sequence[Rider] = (), *, again: bool = False
    ) -> set[tuple[str, str, int]]:
        """Commit the group; the runs that are still ours. `again`: an attempt before this one may have come to pass."""
        keys = [taken.key[:2] for taken in group]

        def write(connection: Connection) -> set[tuple[str, str, int]]:
            ours = self._ours(connection, keys)
            mine = [taken for taken in group if taken.key in ours]
            theirs = [rider for taken in group if taken.key not in ours for rider in taken.riders]
            if again:
                mine = [taken for taken in mine if not _is_there(connection, taken)]
            for rider in (*strays, *theirs, *(rider for taken in mine for rider in taken.riders)):
                rider.write(connection)
            rows = [row_of(self._sealer, taken) for taken in mine]
            self._add.run_each(connection, rows)
            return ours

        return await self._database.transact(write)

    def _ours(self, connection: Connection, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str, int]]:
        """The runs there are, with the fences they have now."""
        if len(keys) > 1 and self._database.is_sqlite:
            rows = FENCES_TOLD.run(connection, {"keys": json.encode(keys).decode()})
            return {(tenant, response_id, fence) for tenant, response_id, fence in rows}
        if len(keys) > 1:
            return {(row.tenant, row.id, row.fence) for row in connection.execute(self._fences, {"keys": keys})}
        found = set[tuple[str, str, int]]()
        for tenant, response_id in keys:
            fence = self._fence.value(connection, {"run_tenant": tenant, "run_id": response_id})
            if fence is not None:
                found.add((tenant, response_id, fence))
        return found

    def _fail(self, group: Sequence[Taken], strays: Sequence[Rider]) -> None:
        error = unavailable()
        self._settle(group, error)
        for rider in strays:
            rider.lost(error)

    def _settle(self, group: Sequence[Taken], fault: GatewayError | None) -> None:
        for taken in group:
            taken.tail.settle(taken, fault)


def _is_there(connection: Connection, taken: Taken) -> bool:
    lease = taken.tail.lease
    place = {"tenant": lease.tenant, "response": lease.response_id, "at": taken.position}
    return connection.execute(entries.AT, place).first() is not None


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
