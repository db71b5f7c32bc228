"""The logs of responses, read: all there is, then what comes, wherever the response is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from app.db.engine import Database
from app.history import entries
from app.history.errors import available
from app.history.seal import Sealer
from app.history.wakes import Wakes, patience
from app.responses.ports import Entry, Event
from app.turn.errors import Unavailable

_ROWS_A_READ: Final = 256
_ALL: Final = -(2**31)
_PAUSE_SECS: Final = 0.1


class SqlEventStore:
    """`EventStore` on a database whose schema is current. `poll` is in seconds, as is the `patience` with a database
    that does not answer somebody who follows."""

    def __init__(self, database: Database, sealer: Sealer, wakes: Wakes, poll: float, patience: float = 0.0) -> None:
        self._database = database
        self._sealer = sealer
        self._wakes = wakes
        self._poll = poll
        self._patience = patience

    async def follow(self, tenant: str, response_id: str, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """See `EventStore`."""
        await self._sealer.ready(tenant)
        position = -1
        with self._wakes.on(response_id) as woken:
            while True:
                woken.clear()
                being_made, rows = await self._read_patiently(tenant, response_id, position, after)
                for row in rows:
                    position = row.position
                    events = self._opened(tenant, response_id, row).events
                    events = tuple(event for event in events if event.sequence_number > after)
                    if events:
                        after = events[-1].sequence_number
                        yield events
                if not rows and not being_made:
                    return
                if not rows:
                    await patience(woken, self._poll)

    async def told(self, tenant: str, response_id: str) -> Sequence[Event]:
        """See `EventStore`."""
        await self._sealer.ready(tenant)
        return [event async for entry in self.entries(tenant, response_id) for event in entry.events]

    async def last(self, tenant: str, response_id: str) -> int:
        """See `EventStore`."""
        key = {"tenant": tenant, "response": response_id}
        with available():
            last = await self._database.look(lambda connection: connection.execute(entries.LAST, key).scalar())
        return -1 if last is None else last

    async def entries(self, tenant: str, response_id: str) -> AsyncIterator[Entry]:
        """The whole log. The tenant's keys must be at hand."""
        position = -1
        while True:
            _, rows = await self._read(tenant, response_id, position, _ALL)
            if not rows:
                return
            for row in rows:
                position = row.position
                yield self._opened(tenant, response_id, row)

    def entry(self, connection: Connection, tenant: str, response_id: str, position: int) -> Entry | None:
        """The entry at that position, as the connection's transaction sees it."""
        key = {"tenant": tenant, "response": response_id}
        bounds = {"position": position - 1, "after": _ALL, "limit": 1}
        row = connection.execute(entries.ENTRIES, {**key, **bounds}).first()
        return None if row is None or row.position != position else self._opened(tenant, response_id, row)

    async def _read_patiently(
        self, tenant: str, response_id: str, position: int, after: int
    ) -> tuple[bool, Sequence[Any]]:
        """`_read`, again and again while patience lasts: who follows has been told that there is something."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                return await self._read(tenant, response_id, position, after)
            except Unavailable:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECS)

    async def _read(self, tenant: str, response_id: str, position: int, after: int) -> tuple[bool, Sequence[Any]]:
        """Whether the run goes on, asked before reading, and the next rows."""
        key = {"tenant": tenant, "response": response_id}
        bounds = {"position": position, "after": after, "limit": _ROWS_A_READ}

        def read(connection: Connection) -> tuple[bool, Sequence[Any]]:
            being_made = connection.execute(entries.BEING_MADE, key).first() is not None
            return being_made, connection.execute(entries.ENTRIES, {**key, **bounds}).all()

        with available():
            return await self._database.look(read)

    def _opened(self, tenant: str, response_id: str, row: Any) -> Entry:
        plain = self._sealer.open(tenant, entries.place(response_id, row.position), row.body)
        return entries.unpack(plain)
