"""Calls that wait for a person's word, in the database. Their arguments are sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.mcp.approvals import Waiting, answered, decided, unknown
from app.mcp.audit import digest
from app.mcp.books import Books
from app.mcp.seals import Sealer
from app.mcp.store import answering
from app.mcp.tables import approvals as table
from app.responses.ports import Approval, Clock
from app.turn.items import Terms


class SqlApprovals:
    """The `Approvals` port, and what an admin sees of it.

    A response is told how long its approvals last; the tenant's policy can only shorten that.
    """

    def __init__(self, database: Database, books: Books, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._books = books
        self._sealer = sealer
        self._clock = clock

    async def open(self, tenant: str, approvals: Sequence[Approval]) -> None:
        """See `Approvals`."""
        if not approvals:
            return
        await self._sealer.ready(tenant)
        policy = (await self._books.policy(tenant)).body
        rows = [self._columns(tenant, each, policy.approval_secs, second=policy.second_person) for each in approvals]
        async with answering():
            await self._database.transact(lambda connection: connection.execute(insert(table), rows).rowcount)

    async def consume(self, tenant: str, approval_id: str, principal: str, *, approve: bool) -> Approval:
        """See `Approvals`."""
        await self._sealer.ready(tenant)
        now = self._clock.now()
        mine = (table.c.tenant == tenant, table.c.id == approval_id)
        async with answering(), self._database.writing() as connection:
            waiting = await self._find(connection, tenant, approval_id)
            if waiting is None or waiting.approval.principal != principal:
                raise unknown(approval_id)
            approval = answered(waiting, now, approve=approve)
            used = await connection.execute(update(table).where(*mine, table.c.used_at.is_(None)).values(used_at=now))
            if used.rowcount == 0:
                # Somebody else was faster, in another process.
                answered(Waiting(waiting.approval, used=True), now, approve=approve)
        return approval

    async def waiting(self, tenant: str, *, limit: int, everything: bool = False) -> Sequence[Waiting]:
        """What waits for a word now, the newest first; with `everything` also what does not any more."""
        await self._sealer.ready(tenant)
        query = select(table).where(table.c.tenant == tenant)
        if not everything:
            open_now = (table.c.used_at.is_(None), table.c.expires_at > self._clock.now())
            query = query.where(*open_now, table.c.word.is_(None))
        query = query.order_by(table.c.created_at.desc(), table.c.id).limit(limit)
        async with answering(), self._database.reading() as connection:
            return [self._waiting(row) for row in await connection.execute(query)]

    async def decide(self, tenant: str, approval_id: str, person: str, *, approve: bool) -> Waiting:
        """Give a word as another person than the one who asked.

        Raises `NotFound`; `Forbidden` for the one who asked; `Conflict` when it was given, used, or is too late.
        """
        await self._sealer.ready(tenant)
        now = self._clock.now()
        mine = (table.c.tenant == tenant, table.c.id == approval_id)
        async with answering(), self._database.writing() as connection:
            found = await self._find(connection, tenant, approval_id)
            if found is None:
                raise unknown(approval_id)
            after = decided(found, now, person, approve=approve)
            still = (table.c.word.is_(None), table.c.used_at.is_(None))
            values = {"word": approve, "decided_by": person, "decided_at": now}
            if (await connection.execute(update(table).where(*mine, *still).values(**values))).rowcount == 0:
                decided(Waiting(found.approval, used=True), now, person, approve=approve)
        return after

    async def _find(self, connection: AsyncConnection, tenant: str, approval_id: str) -> Waiting | None:
        query = select(table).where(table.c.tenant == tenant, table.c.id == approval_id)
        row = (await connection.execute(query)).first()
        return None if row is None else self._waiting(row)

    def _waiting(self, row: Row[Any]) -> Waiting:
        arguments = self._sealer.open(row.tenant, f"approvals/{row.id}", row.arguments).decode("utf-8", "surrogatepass")
        approval = Approval(
            id=row.id,
            principal=row.principal,
            response_id=row.response_id,
            server_label=row.server_label,
            tool=row.tool,
            arguments=arguments,
            terms=Terms(row.place, row.definition, row.policy),
            created_at=row.created_at,
            expires_at=row.expires_at,
        )
        return Waiting(approval, row.second_person, row.word, row.decided_by, row.used_at is not None)

    def _columns(self, tenant: str, approval: Approval, longest: float, *, second: bool) -> dict[str, Any]:
        plain = approval.arguments.encode("utf-8", "surrogatepass")
        return {
            "tenant": tenant,
            "id": approval.id,
            "principal": approval.principal,
            "response_id": approval.response_id,
            "server_label": approval.server_label,
            "tool": approval.tool,
            "arguments": self._sealer.seal(tenant, f"approvals/{approval.id}", plain),
            "arguments_digest": digest(approval.arguments),
            "place": approval.terms.place,
            "definition": approval.terms.definition,
            "policy": approval.terms.policy,
            "created_at": approval.created_at,
            "expires_at": min(approval.expires_at, approval.created_at + longest),
            "second_person": second,
        }
