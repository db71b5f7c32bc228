"""Calls that wait for a person's word, in the database. Their arguments are sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs
from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.mcp.approvals import Waiting, answered, decided, unknown
from app.mcp.audit import digest
from app.mcp.books import Books
from app.mcp.seals import Sealer
from app.mcp.store import answering
from app.mcp.tables import approvals as table
from app.responses.ports import Approval, Clock
from app.turn.errors import Conflict
from app.turn.items import Terms

# What makes two calls the same call.
_SAME = ("server_label", "tool", "arguments_digest", "place", "definition", "policy")


class SqlApprovals:
    """The `Approvals` port, the `Asking` port, and what an admin sees of them.

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

    async def ask(self, tenant: str, wanted: Approval, most: int) -> Waiting:
        """See `Asking`. It always takes another person: there is no request to come in which its user could answer."""
        await self._sealer.ready(tenant)
        policy = (await self._books.policy(tenant)).body
        columns = self._columns(tenant, wanted, policy.approval_secs, second=True)
        now = self._clock.now()
        mine = (table.c.tenant == tenant, table.c.principal == wanted.principal, table.c.response_id == "")
        waits = (*mine, table.c.used_at.is_(None), table.c.expires_at > now)
        alike = (table.c[name] == columns[name] for name in _SAME)
        async with answering(), self._database.writing() as connection:
            found = select(table).where(*waits, *alike).order_by(table.c.created_at.desc(), table.c.id).limit(1)
            if (row := (await connection.execute(found)).first()) is not None:
                waiting = self._waiting(row)
                if waiting.word is not True:
                    return waiting
                one = (table.c.tenant == tenant, table.c.id == row.id, table.c.used_at.is_(None))
                if (await connection.execute(update(table).where(*one).values(used_at=now))).rowcount:
                    return structs.replace(waiting, used=True)
            count = select(func.count()).select_from(table).where(*waits, table.c.word.is_(None))
            if (await connection.execute(count)).scalar_one() >= most:
                raise Conflict(f"{most} calls of yours wait for approval already.", code="too_many_approvals")
            await connection.execute(insert(table).values(**columns))
        return Waiting(structs.replace(wanted, expires_at=columns["expires_at"]), second_person=True)

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
