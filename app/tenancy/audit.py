"""The log of what was done in a tenant's name: rows are added, read and exported, never changed."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Select, insert, select

from app.db.engine import Database
from app.db.prepared import Prepared
from app.tenancy.store import answering
from app.tenancy.tables import audit
from app.turn.errors import GatewayError

_log = logging.getLogger(__name__)

_EXPORT_PAGE = 500
_COLUMNS = [column.name for column in audit.columns if column.name != "number"]
_ADD = Prepared(insert(audit), _COLUMNS)


class Entry(Struct, frozen=True, kw_only=True):
    """Something that was done, or refused. `number` counts up as it is written; 0 until then.

    `at` is in seconds since the epoch; `seconds` is how long it took. `arguments` are kept where the tenant wants
    them to be; `arguments_digest` (SHA-256) always tells whether two calls were the same.
    """

    tenant: str
    at: float
    principal: str
    action: str
    server: str = ""
    tool: str = ""
    decision: str = ""
    outcome: str = ""
    seconds: float = 0.0
    arguments_digest: str = ""
    arguments: str | None = None
    detail: str = ""
    number: int = 0


class Filter(Struct, frozen=True, kw_only=True):
    """Which entries are wanted: those that agree with everything that is set."""

    action: str | None = None
    server: str | None = None
    tool: str | None = None
    principal: str | None = None
    decision: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None


class AuditLog:
    """The log. Raises `Unavailable` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, all or none."""
        rows = [_row(entry) for entry in entries]
        if not rows:
            return
        async with answering():
            await self._database.transact(lambda connection: _ADD.run_each(connection, rows))

    async def read(self, tenant: str, only: Filter, *, limit: int, before: int | None = None) -> Sequence[Entry]:
        """At most `limit` of the tenant's entries, the newest first, from before number `before`."""
        query = _matching(tenant, only).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.number < before)
        async with answering(), self._database.reading() as connection:
            return [Entry(**row) for row in (await connection.execute(query)).mappings()]

    async def export(self, tenant: str, only: Filter) -> AsyncGenerator[Sequence[Entry]]:
        """All of the tenant's entries, the oldest first, in pages."""
        after = 0
        while True:
            query = _matching(tenant, only).where(audit.c.number > after).order_by(audit.c.number).limit(_EXPORT_PAGE)
            async with answering(), self._database.reading() as connection:
                page = [Entry(**row) for row in (await connection.execute(query)).mappings()]
            if page:
                yield page
            if len(page) < _EXPORT_PAGE:
                return
            after = page[-1].number


class Riding:
    """An entry that is stored with the log of the run whose call it tells of: a `Rider`."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def write(self, transaction: Connection) -> None:
        """Add the entry."""
        _ADD.run(transaction, _row(self._entry))

    def lost(self, why: GatewayError) -> None:
        """The call was made; that nobody wrote it down does not unmake it."""
        extra = {"tenant": self._entry.tenant, "tool": self._entry.tool}
        _log.critical("a tool call is missing from the audit log: %s", why.message, extra=extra)


def _row(entry: Entry) -> dict[str, Any]:
    found = {name: getattr(entry, name) for name in _COLUMNS}
    return {name: _storable(value) if isinstance(value, str) else value for name, value in found.items()}


def _storable(text: str) -> str:
    """The text without what no database takes: a model may call a tool anything, and one entry that cannot be written
    must not keep others from being."""
    if "\0" not in text and text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")


def _matching(tenant: str, only: Filter) -> Select[Any]:
    query = select(audit).where(audit.c.tenant == tenant)
    for name in ("action", "server", "tool", "principal", "decision", "outcome"):
        if (wanted := getattr(only, name)) is not None:
            query = query.where(audit.c[name] == wanted)
    if only.since is not None:
        query = query.where(audit.c.at >= only.since)
    if only.until is not None:
        query = query.where(audit.c.at < only.until)
    return query
