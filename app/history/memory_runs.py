"""Runs in a dict: the twin of `runs` and `events`, held to the same contract. Several owners may share a `Shelf`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec import Struct, structs

from app.history.errors import conversation_locked, id_taken, unavailable
from app.history.journal import lost
from app.history.memory import MemoryHistoryStore
from app.history.wakes import patience
from app.responses.ledger import Rider
from app.responses.ports import (
    Entry,
    Event,
    Held,
    HistoryStore,
    Lease,
    NewRun,
    OpenRun,
    RunState,
    StoredResponse,
    Witness,
)
from app.turn.errors import GatewayError
from app.turn.events import InEvent


class _Row(Struct, frozen=True):
    run: NewRun
    owner: str | None
    fence: int
    expires: float
    cancelled: bool = False


class Shelf:
    """What a database would hold: runs, their logs, and who waits for news of them. `away`: it does not answer."""

    def __init__(self) -> None:
        self.away = False
        self.rows: dict[tuple[str, str], _Row] = {}
        self.logs: dict[tuple[str, str], list[Entry]] = {}
        self.news = asyncio.Event()

    def tell(self) -> None:
        """Wake everyone."""
        self.news.set()
        self.news = asyncio.Event()

    def ask(self) -> None:
        """Raise `Unavailable` while it is away."""
        if self.away:
            raise unavailable()

    def is_held(self, lease: Lease) -> bool:
        """Whether the lease is still good."""
        self.ask()
        row = self.rows.get((lease.tenant, lease.response_id))
        return row is not None and row.fence == lease.fence


class MemoryTail:
    """`Tail` that writes at the next turn of the loop."""

    def __init__(self, shelf: Shelf, history: HistoryStore, lease: Lease, witness: Witness) -> None:
        self._shelf = shelf
        self._history = history
        self._lease = lease
        self._witness = witness
        self._steps: list[InEvent] = []
        self._events: list[Event] = []
        self._riders: list[Rider] = []
        self._over = False
        self._fault: GatewayError | None = None

    @property
    def full(self) -> bool:
        """Never: memory is written as soon as anyone asks."""
        return False

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        """See `Tail`."""
        self._steps += () if step is None else (step,)
        self._events += events
        asyncio.get_running_loop().call_soon(self._write)

    def ride(self, rider: Rider) -> bool:
        """See `Ledger`."""
        if self._over or self._fault is not None:
            return False
        self._riders.append(rider)
        return True

    async def flush(self) -> None:
        """See `Tail`."""
        self._write()
        if self._fault is not None:
            raise self._fault

    async def conclude(self, events: Sequence[Event], response: StoredResponse | None) -> None:
        """See `Tail`."""
        await self.flush()
        if not self._shelf.is_held(self._lease):
            raise lost()
        if response is not None:
            await self._history.save(self._lease.tenant, response)
        self._events += events
        self._write()
        self._over = True
        del self._shelf.rows[self._lease.tenant, self._lease.response_id]
        self._shelf.tell()

    def _write(self) -> None:
        if self._fault is not None or not (self._steps or self._events or self._riders):
            return
        if self._shelf.away:
            self._fault = unavailable()
            for rider in self._riders:
                rider.lost(self._fault)
            self._riders = []
            self._witness.broken(self._fault)
            return
        # Whoever's the run is now: what rides tells of what was done here.
        for rider in self._riders:
            rider.write(self._shelf)
        self._riders = []
        if not self._shelf.is_held(self._lease):
            self._fault = lost()
            self._witness.broken(self._fault)
            return
        entry = Entry(tuple(self._steps), tuple(self._events))
        self._steps, self._events = [], []
        self._shelf.logs[self._lease.tenant, self._lease.response_id].append(entry)
        self._shelf.tell()
        self._witness.durable(entry.events)


class MemoryRunStore:
    """`RunStore` and `EventStore` of one owner. `now` is in seconds; `lease_secs` is how long a lease lasts."""

    def __init__(
        self, shelf: Shelf, history: MemoryHistoryStore, owner: str, now: Callable[[], float], lease_secs: float = 6.0
    ) -> None:
        self._shelf = shelf
        self._history = history
        self._owner = owner
        self._now = now
        self._lease_secs = lease_secs

    async def begin(self, run: NewRun, entry: Entry | None, *, waiting: bool) -> Lease:
        """See `RunStore`."""
        self._shelf.ask()
        if run.conversation_id is not None and await self.held(run.tenant, run.conversation_id):
            raise conversation_locked()
        if run.conversation_id is not None and run.conversation_version is not None:
            self._history.conversations.open(run.tenant, run.conversation_id, run.conversation_version)
        key = (run.tenant, run.response_id)
        if key in self._shelf.rows:
            raise id_taken(run.response_id)
        fence = 0 if waiting else 1
        expires = 0.0 if waiting else self._now() + self._lease_secs
        self._shelf.rows[key] = _Row(run, None if waiting else self._owner, fence, expires)
        if entry is not None:
            self._shelf.logs[key] = [entry]
        self._shelf.tell()
        return Lease(*key, fence)

    def tail(self, lease: Lease, entries: Sequence[Entry], witness: Witness) -> MemoryTail:
        """See `RunStore`."""
        del entries
        return MemoryTail(self._shelf, self._history, lease, witness)

    async def claim(self, limit: int, *, brief: bool) -> Sequence[OpenRun]:
        """See `RunStore`."""
        self._shelf.ask()
        found: list[OpenRun] = []
        for key, row in list(self._shelf.rows.items()):
            is_brief = not row.run.background or row.cancelled
            is_free = row.expires < self._now() and row.owner != self._owner
            if len(found) < limit and is_free and brief == is_brief:
                fence = row.fence + 1
                expires = self._now() + self._lease_secs
                self._shelf.rows[key] = structs.replace(row, owner=self._owner, fence=fence, expires=expires)
                found.append(
                    OpenRun(
                        lease=Lease(*key, fence),
                        background=row.run.background,
                        cancelled=row.cancelled,
                        created_at=row.run.created_at,
                        request=row.run.request,
                        entries=tuple(self._shelf.logs.get(key, ())),
                    )
                )
        return found

    async def renew(self) -> Sequence[Held]:
        """See `RunStore`."""
        self._shelf.ask()
        mine = {key: row for key, row in self._shelf.rows.items() if row.owner == self._owner}
        for key, row in mine.items():
            self._shelf.rows[key] = structs.replace(row, expires=self._now() + self._lease_secs)
        return [Held(Lease(*key, row.fence), row.cancelled) for key, row in mine.items()]

    async def rest(self, seconds: float) -> None:
        """See `RunStore`."""
        await patience(self._shelf.news, seconds)

    async def end(self, lease: Lease) -> None:
        """See `RunStore`."""
        self._shelf.ask()
        if self._shelf.is_held(lease):
            del self._shelf.rows[lease.tenant, lease.response_id]

    async def log(self, lease: Lease) -> Sequence[Entry]:
        """See `RunStore`."""
        if not self._shelf.is_held(lease):
            raise lost()
        return tuple(self._shelf.logs[lease.tenant, lease.response_id])

    async def release(self, lease: Lease) -> None:
        """See `RunStore`."""
        if self._shelf.is_held(lease):
            key = (lease.tenant, lease.response_id)
            self._shelf.rows[key] = structs.replace(self._shelf.rows[key], owner=None, expires=0.0)
            self._shelf.tell()

    async def cancel(self, tenant: str, response_id: str) -> None:
        """See `RunStore`."""
        self._shelf.ask()
        row = self._shelf.rows.get((tenant, response_id))
        if row is not None:
            self._shelf.rows[tenant, response_id] = structs.replace(row, cancelled=True)
            self._shelf.tell()

    async def look(self, tenant: str, response_id: str) -> RunState | None:
        """See `RunStore`."""
        self._shelf.ask()
        row = self._shelf.rows.get((tenant, response_id))
        return (
            None
            if row is None or row.run.request is None
            else RunState(row.run.background, row.cancelled, row.expires < self._now())
        )

    async def held(self, tenant: str, conversation_id: str) -> bool:
        """See `RunStore`."""
        rows = self._shelf.rows.items()
        return any(key[0] == tenant and row.run.conversation_id == conversation_id for key, row in rows)

    async def follow(self, tenant: str, response_id: str, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """See `EventStore`."""
        while True:
            news = self._shelf.news
            if self._shelf.away:
                await patience(news, 1.0)
                continue
            being_made = (tenant, response_id) in self._shelf.rows
            events = [event for event in await self.told(tenant, response_id) if event.sequence_number > after]
            if events:
                after = events[-1].sequence_number
                yield events
            elif being_made:
                await patience(news, 1.0)
            else:
                return

    async def told(self, tenant: str, response_id: str) -> Sequence[Event]:
        """See `EventStore`."""
        self._shelf.ask()
        log = self._shelf.logs.get((tenant, response_id), ())
        if self._history.was_deleted(tenant, response_id):
            return ()
        return [event for entry in log for event in entry.events]

    async def last(self, tenant: str, response_id: str) -> int:
        """See `EventStore`."""
        return max((event.sequence_number for event in await self.told(tenant, response_id)), default=-1)
