"""Calls that wait for a user's answers, in the database. What they are gone on with is sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Row, delete, insert, select, update

from app.db.engine import Database
from app.mcp.elicitations import GRACE_SECS, Unanswered, check
from app.mcp.seals import Sealer
from app.mcp.store import answering
from app.mcp.tables import elicitations as table
from app.responses.eliciting import Elicitation
from app.responses.ports import Clock
from app.turn.events import Approved
from app.turn.items import Question


class _Within(Struct, frozen=True):
    arguments: str
    questions: tuple[Question, ...]
    state: bytes
    approved: Approved | None


_within = msgspec.json.Decoder(_Within)


class SqlElicitations:
    """The `Elicitations` port, and what an admin sees of it. Methods also raise `Unavailable`."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock

    async def open(self, tenant: str, elicitations: Sequence[Elicitation]) -> None:
        """See `Elicitations`."""
        if not elicitations:
            return
        await self._sealer.ready(tenant)
        rows = [self._columns(tenant, each) for each in elicitations]
        async with answering(), self._database.writing() as connection:
            await connection.execute(insert(table), rows)

    async def find(self, tenant: str, elicitation_id: str, principal: str) -> Elicitation:
        """See `Elicitations`."""
        await self._sealer.ready(tenant)
        query = select(table).where(table.c.tenant == tenant, table.c.id == elicitation_id)
        async with answering(), self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        kept = None if row is None else self._unanswered(row)
        return check(kept, elicitation_id, principal, self._clock.now())

    async def consume(self, tenant: str, elicitation_id: str, principal: str) -> None:
        """See `Elicitations`."""
        found = await self.find(tenant, elicitation_id, principal)
        now = self._clock.now()
        mine = (table.c.tenant == tenant, table.c.id == elicitation_id, table.c.used_at.is_(None))
        async with answering(), self._database.writing() as connection:
            used = await connection.execute(update(table).where(*mine).values(used_at=now))
        if used.rowcount == 0:
            # Somebody else was faster, in another process.
            check(Unanswered(found, used=True), elicitation_id, principal, now)

    async def waiting(self, tenant: str, *, limit: int, everything: bool = False) -> Sequence[Unanswered]:
        """What waits for answers now, the newest first; with `everything` also what does not any more."""
        await self._sealer.ready(tenant)
        query = select(table).where(table.c.tenant == tenant)
        if not everything:
            query = query.where(table.c.used_at.is_(None), table.c.expires_at > self._clock.now())
        query = query.order_by(table.c.created_at.desc(), table.c.id).limit(limit)
        async with answering(), self._database.reading() as connection:
            return [self._unanswered(row) for row in await connection.execute(query)]

    async def sweep(self) -> int:
        """Forget what expired long ago, of all tenants; how many there were."""
        before = self._clock.now() - GRACE_SECS
        async with answering(), self._database.writing() as connection:
            return (await connection.execute(delete(table).where(table.c.expires_at <= before))).rowcount

    def _unanswered(self, row: Row[Any]) -> Unanswered:
        within = _within.decode(self._sealer.open(row.tenant, f"elicitations/{row.id}", row.sealed))
        elicitation = Elicitation(
            id=row.id,
            principal=row.principal,
            response_id=row.response_id,
            server_label=row.server_label,
            tool=row.tool,
            arguments=within.arguments,
            questions=within.questions,
            state=within.state,
            approved=within.approved,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )
        return Unanswered(elicitation, row.used_at is not None)

    def _columns(self, tenant: str, each: Elicitation) -> dict[str, Any]:
        plain = msgspec.json.encode(_Within(each.arguments, each.questions, each.state, each.approved))
        return {
            "tenant": tenant,
            "id": each.id,
            "principal": each.principal,
            "response_id": each.response_id,
            "server_label": each.server_label,
            "tool": each.tool,
            "sealed": self._sealer.seal(tenant, f"elicitations/{each.id}", plain),
            "created_at": each.created_at,
            "expires_at": each.expires_at,
        }
