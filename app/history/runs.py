"""Runs in the database: who makes a response, until when, and how it passes to somebody else.

A run's row is there from the moment its client is told about it until it is concluded, which also stores the response
and writes the last events, in one transaction. A process that dies leaves rows behind whose time runs out; whoever
finds one claims it, which raises its fence, and begins again from its log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.history import entries, lines
from app.history import run_statements as sql
from app.history.errors import available, conversation_locked, id_taken, unavailable
from app.history.events import SqlEventStore
from app.history.journal import Journal, JournalTail, Taken, entry_row, lost, row_of
from app.history.seal import Sealer
from app.history.settings import HistorySettings
from app.history.store import SqlHistoryStore
from app.history.wakes import RUNS, Wakes, patience
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
        interval = settings.commit_interval_ms / 1000
        self.journal = Journal(database, sealer, wakes, interval=interval, patience=settings.patience_secs)

    # ── the life of a run ─────────────────────────────────────────────────────

    async def begin(self, run: NewRun, entry: Entry, *, waiting: bool) -> Lease:
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
            "request": self._sealer.seal(run.tenant, request_place(run.response_id), run.request),
        }
        add = sql.ADD_WAITING_RUN if waiting else sql.ADD_RUN
        lasts = {} if waiting else {"lasts": self._settings.lease_secs}
        first = entry_row(self._sealer, lease, 0, entry.events[-1].sequence_number if entry.events else -1, entry)
        with available():
            try:
                async with self._database.writing() as connection:
                    if run.conversation_id is not None and run.conversation_version is not None:
                        await lines.tip(connection, run.tenant, run.conversation_id, run.conversation_version)
                    await connection.execute(add, {**row, **lasts})
                    await connection.execute(entries.ADD_ENTRY, first)
                    if waiting:
                        await self._wakes.note(connection, [RUNS])
            except IntegrityError:
                raise await self._taken(run) from None
        if waiting:
            self._wakes.wake([RUNS])
        return lease

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
        async with self._database.writing() as connection:
            if await connection.scalar(sql.FENCE, key) != lease.fence:
                # An attempt whose end we did not hear of may have come to pass.
                if again and await self._is_written(connection, taken):
                    return
                raise lost()
            if response is not None:
                await self._store.write(connection, lease.tenant, response, fork=fork)
            if not taken.empty:
                await connection.execute(self._add, [row_of(self._sealer, taken)])
            await connection.execute(sql.END_RUN, key)
            await self._wakes.note(connection, [lease.response_id])

    async def _is_written(self, connection: AsyncConnection, taken: Taken) -> bool:
        lease = taken.tail.lease
        written = await self._events.entry(connection, lease.tenant, lease.response_id, taken.position)
        return written == taken.entry

    async def log(self, lease: Lease) -> Sequence[Entry]:
        """See `RunStore`."""
        await self._sealer.ready(lease.tenant)
        with available():
            async with self._database.reading() as connection:
                if await connection.scalar(sql.FENCE, _key(lease.tenant, lease.response_id)) != lease.fence:
                    raise lost()
        return [entry async for entry in self._events.entries(lease.tenant, lease.response_id)]

    async def release(self, lease: Lease) -> None:
        """See `RunStore`."""
        with available():
            async with self._database.writing() as connection:
                await connection.execute(sql.RELEASE, {**_key(lease.tenant, lease.response_id), "held": lease.fence})
                await self._wakes.note(connection, [RUNS])
        self._wakes.wake([RUNS])

    async def cancel(self, tenant: str, response_id: str) -> None:
        """See `RunStore`."""
        with available():
            async with self._database.writing() as connection:
                await connection.execute(sql.CANCEL, _key(tenant, response_id))
                await self._wakes.note(connection, [RUNS])
        self._wakes.wake([RUNS])

    # ── owners ────────────────────────────────────────────────────────────────

    async def claim(self, limit: int, *, brief: bool) -> Sequence[OpenRun]:
        """See `RunStore`."""
        if limit <= 0:
            return ()
        wanted = {"brief": brief, "limit": limit}
        with available():
            # Looking costs nobody anything; only what was found is worth a transaction.
            async with self._database.reading() as connection:
                if not (await connection.execute(sql.CLAIMABLE, wanted)).first():
                    return ()
            async with self._database.writing() as connection:
                found = (await connection.execute(sql.CLAIMABLE_HELD, wanted)).all()
                if not found:
                    return ()
                keys = [(row.tenant, row.id) for row in found]
                mine = {"keys": keys, "me": self._owner, "lasts": self._settings.lease_secs}
                await connection.execute(sql.CLAIM, mine)
            return [await self._open(row) for row in found]

    async def _open(self, row: Any) -> OpenRun:
        await self._sealer.ready(row.tenant)
        return OpenRun(
            lease=Lease(row.tenant, row.id, row.fence + 1),
            background=row.background,
            cancelled=row.cancelled,
            created_at=row.created_at,
            request=self._sealer.open(row.tenant, request_place(row.id), row.request),
            entries=tuple([entry async for entry in self._events.entries(row.tenant, row.id)]),
        )

    async def renew(self) -> Sequence[Held]:
        """See `RunStore`."""
        with available():
            async with self._database.writing() as connection:
                mine = {"me": self._owner, "lasts": self._settings.lease_secs}
                rows = (await connection.execute(sql.RENEW, mine)).all()
        return [Held(Lease(row.tenant, row.id, row.fence), row.cancelled) for row in rows]

    async def rest(self, seconds: float) -> None:
        """See `RunStore`."""
        with self._wakes.on(RUNS) as woken:
            await patience(woken, seconds)

    async def look(self, tenant: str, response_id: str) -> RunState | None:
        """See `RunStore`."""
        with available():
            async with self._database.reading() as connection:
                row = (await connection.execute(sql.LOOK, _key(tenant, response_id))).one_or_none()
        return None if row is None else RunState(row.background, row.cancelled, row.waiting)

    async def held(self, tenant: str, conversation_id: str) -> bool:
        """See `RunStore`."""
        with available():
            async with self._database.reading() as connection:
                key = {"tenant": tenant, "conversation": conversation_id}
                return (await connection.execute(sql.CONVERSATION, key)).first() is not None


def _key(tenant: str, response_id: str) -> dict[str, Any]:
    return {"run_tenant": tenant, "run_id": response_id}


def request_place(response_id: str) -> str:
    """The place a run's request is sealed for."""
    return f"runs/{response_id}"
