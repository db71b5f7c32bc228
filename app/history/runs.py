"""Runs in the database: who makes a response, until when, and how it passes to somebody else.

A run's row is there from the moment its client is told about it until it is concluded, which also stores the response
and writes the last events, in one transaction. A process that dies leaves rows behind whose time runs out; whoever
finds one claims it, which raises its fence, and begins again from its log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.db.engine import Database
from app.db.prepared import Prepared
from app.history import entries, lines
from app.history import run_statements as sql
from app.history.errors import available, conversation_locked, id_taken, unavailable
from app.history.events import SqlEventStore
from app.history.journal import Journal, JournalTail, Taken, entry_row, lost, row_of
from app.history.seal import Sealer
from app.history.settings import HistorySettings
from app.history.store import SqlHistoryStore
from app.history.tables import runs
from app.history.wakes import RUNS, Wakes, notice, patience
from app.responses.ports import Entry, Held, Lease, NewRun, OpenRun, RunState, StoredResponse, Witness
from app.turn.errors import GatewayError

_PAUSE_SECS: Final = 0.1


class SqlRunStore:
    """`RunStore` on a database whose schema is current. `owner` names this process, uniquely."""

    def __init__(
        self,
        database: Database,
        store: SqlHistoryStore,
        events: SqlEventStore,
        sealer: Sealer,
        wakes: Wakes,
        settings: HistorySettings,
        owner: str,
    ) -> None:
        self._database = database
        self._store = store
        self._events = events
        self._sealer = sealer
        self._wakes = wakes
        self._settings = settings
        self._owner = owner
        self._add = entries.add_entries(is_sqlite=database.is_sqlite)
        self._end = Prepared(sql.END_RUN if database.is_sqlite else sql.END_RUN.returning(notice(runs.c.id)))
        interval = settings.commit_interval_ms / 1000
        self.journal = Journal(database, sealer, wakes, interval=interval, patience=settings.patience_secs)

    # ── the life of a run ─────────────────────────────────────────────────────

    async def begin(self, run: NewRun, entry: Entry | None, *, waiting: bool) -> Lease:
        """See `RunStore`."""
        await self._sealer.ready(run.tenant)
        lease = Lease(run.tenant, run.response_id, 0 if waiting else 1)
        row = {
            "tenant": run.tenant,
            "id": run.response_id,
            "owner": None if waiting else self._owner,
            "fence": lease.fence,
            "background": run.background,
            "cancelled": False,
            "created_at": run.created_at,
            "conversation_id": run.conversation_id,
            "request": self._sealed(run),
        }
        add = sql.ADD_WAITING_RUN if waiting else sql.ADD_RUN
        lasts = {} if waiting else {"lasts": self._settings.lease_secs}
        told = -1 if entry is None or not entry.events else entry.events[-1].sequence_number
        first = None if entry is None else entry_row(self._sealer, lease, 0, told, entry)

        def write(connection: Connection) -> None:
            if run.conversation_id is not None and run.conversation_version is not None:
                lines.tip(connection, run.tenant, run.conversation_id, run.conversation_version)
            add.run(connection, {**row, **lasts})
            if first is not None:
                entries.ADD_ENTRY.run(connection, first)
            if waiting:
                self._wakes.note(connection, [RUNS])

        with available():
            try:
                await self._database.transact(write)
            except IntegrityError:
                raise await self._taken(run) from None
        if waiting:
            self._wakes.wake([RUNS])
        self.journal.began()
        return lease

    def _sealed(self, run: NewRun) -> bytes | None:
        place = request_place(run.response_id)
        return None if run.request is None else self._sealer.seal(run.tenant, place, run.request)

    async def _taken(self, run: NewRun) -> GatewayError:
        if run.conversation_id is not None and await self.held(run.tenant, run.conversation_id):
            return conversation_locked()
        return id_taken(run.response_id)

    def tail(self, lease: Lease, entries: Sequence[Entry], witness: Witness) -> JournalTail:
        """See `RunStore`."""
        last = max((event.sequence_number for entry in entries for event in entry.events[-1:]), default=-1)
        return JournalTail(self.journal, lease, len(entries), last, witness, self._conclude)

    async def _conclude(self, taken: Taken, response: StoredResponse | None) -> None:
        """Conclude; try again while patience lasts, since nobody else will before the lease ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.patience_secs
        fork = again = False
        with available():
            while True:
                try:
                    await self._try_to_conclude(taken, response, fork=fork, again=again)
                except IntegrityError:
                    if fork:
                        raise unavailable() from None
                    # Somebody else went on from the same tip in this moment: then this one forks.
                    fork = True
                except (SQLAlchemyError, OSError, TimeoutError):
                    if loop.time() >= deadline:
                        raise
                    again = True
                    await asyncio.sleep(_PAUSE_SECS)
                else:
                    break
        self._wakes.wake([taken.tail.lease.response_id])

    async def _try_to_conclude(self, taken: Taken, response: StoredResponse | None, *, fork: bool, again: bool) -> None:
        lease = taken.tail.lease
        key = _key(lease.tenant, lease.response_id)

        def write(connection: Connection) -> None:
            if sql.FENCE_ALONE.value(connection, key) != lease.fence:
                # An attempt whose end we did not hear of may have come to pass.
                if again and self._is_written(connection, taken):
                    return
                raise lost()
            if response is not None:
                self._store.write(connection, lease.tenant, response, fork=fork)
            for rider in taken.riders:
                rider.write(connection)
            if not taken.empty:
                self._add.run(connection, row_of(self._sealer, taken))
            self._end.run(connection, key)

        await self._database.transact(write)

    def _is_written(self, connection: Connection, taken: Taken) -> bool:
        lease = taken.tail.lease
        written = self._events.entry(connection, lease.tenant, lease.response_id, taken.position)
        return written == taken.entry

    async def end(self, lease: Lease) -> None:
        """See `RunStore`."""
        mine = {**_key(lease.tenant, lease.response_id), "held": lease.fence}
        with available():
            await self._database.transact(lambda connection: connection.execute(sql.END_HELD, mine))

    async def log(self, lease: Lease) -> Sequence[Entry]:
        """See `RunStore`."""
        await self._sealer.ready(lease.tenant)
        key = _key(lease.tenant, lease.response_id)
        with available():
            fence = await self._database.look(lambda connection: sql.FENCE_ALONE.value(connection, key))
        if fence != lease.fence:
            raise lost()
        return [entry async for entry in self._events.entries(lease.tenant, lease.response_id)]

    async def release(self, lease: Lease) -> None:
        """See `RunStore`."""
        await self._change(sql.RELEASE, {**_key(lease.tenant, lease.response_id), "held": lease.fence})

    async def _change(self, statement: Executable, values: Mapping[str, object]) -> None:
        """Change a run, and tell whoever looks for runs."""

        def write(connection: Connection) -> None:
            connection.execute(statement, values)
            self._wakes.note(connection, [RUNS])

        with available():
            await self._database.transact(write)
        self._wakes.wake([RUNS])

    async def cancel(self, tenant: str, response_id: str) -> None:
        """See `RunStore`."""
        await self._change(sql.CANCEL, _key(tenant, response_id))

    # ── owners ────────────────────────────────────────────────────────────────

    async def claim(self, limit: int, *, brief: bool) -> Sequence[OpenRun]:
        """See `RunStore`."""
        if limit <= 0:
            return ()
        wanted = {"brief": brief, "limit": limit, "me": self._owner}

        def take(connection: Connection) -> Sequence[Any]:
            found = connection.execute(sql.CLAIMABLE_HELD, wanted).all()
            if found:
                keys = [(row.tenant, row.id) for row in found]
                mine = {"keys": keys, "me": self._owner, "lasts": self._settings.lease_secs}
                connection.execute(sql.CLAIM, mine)
            return found

        with available():
            # Looking costs nobody anything; only what was found is worth a transaction.
            if not await self._first(sql.CLAIMABLE, wanted):
                return ()
            found = await self._database.transact(take)
            if not found:
                # Somebody else takes it just now, or its owner was stopped while it had it locked.
                await self._database.undo_stalled()
            return [await self._open(row) for row in found]

    async def _open(self, row: Any) -> OpenRun:
        await self._sealer.ready(row.tenant)
        return OpenRun(
            lease=Lease(row.tenant, row.id, row.fence + 1),
            background=row.background,
            cancelled=row.cancelled,
            created_at=row.created_at,
            request=None if row.request is None else self._opened(row),
            entries=tuple([entry async for entry in self._events.entries(row.tenant, row.id)]),
        )

    def _opened(self, row: Any) -> bytes:
        return self._sealer.open(row.tenant, request_place(row.id), row.request)

    async def renew(self) -> Sequence[Held]:
        """See `RunStore`."""
        mine = {"me": self._owner, "lasts": self._settings.lease_secs}
        with available():
            rows = await self._database.transact(lambda connection: connection.execute(sql.RENEW, mine).all())
        return [Held(Lease(row.tenant, row.id, row.fence), row.cancelled) for row in rows]

    async def rest(self, seconds: float) -> None:
        """See `RunStore`."""
        with self._wakes.on(RUNS) as woken:
            await patience(woken, seconds)

    async def look(self, tenant: str, response_id: str) -> RunState | None:
        """See `RunStore`."""
        with available():
            row = await self._first(sql.LOOK, _key(tenant, response_id))
        return None if row is None else RunState(row.background, row.cancelled, row.waiting)

    async def held(self, tenant: str, conversation_id: str) -> bool:
        """See `RunStore`."""
        with available():
            return await self._first(sql.CONVERSATION, {"tenant": tenant, "conversation": conversation_id}) is not None

    async def _first(self, statement: Executable, values: Mapping[str, object]) -> Any:
        """The first row there is."""
        return await self._database.look(lambda connection: connection.execute(statement, values).first())


def _key(tenant: str, response_id: str) -> dict[str, Any]:
    return {"run_tenant": tenant, "run_id": response_id}


def request_place(response_id: str) -> str:
    """The place a run's request is sealed for."""
    return f"runs/{response_id}"
