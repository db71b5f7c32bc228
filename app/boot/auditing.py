"""From what rooms tell to what the audit log keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app.mcp.admin import Acted
from app.mcp.audit import Called, Tell
from app.responses.ledger import Ledger
from app.responses.ports import Clock
from app.tenancy.audit import AuditLog, Entry, Riding


def acts_to(log: AuditLog, clock: Clock) -> Callable[[Acted], Awaitable[None]]:
    """Writes down what admins do."""

    async def acted(what: Acted) -> None:
        entry = Entry(
            tenant=what.by.tenant,
            at=clock.now(),
            principal=what.by.principal,
            action=what.action,
            server=what.server,
            tool=what.tool,
            detail=what.detail,
        )
        await log.append([entry])

    return acted


def calls_to(log: AuditLog, clock: Clock) -> Tell:
    """Writes down tool calls."""

    async def called(what: Called, ledger: Ledger | None) -> None:
        entry = Entry(
            tenant=what.tenant,
            at=clock.now(),
            principal=what.principal,
            action="mcp.tool.call",
            server=what.server,
            tool=what.tool,
            decision=what.decision,
            outcome=what.outcome,
            seconds=round(what.seconds, 6),
            arguments_digest=what.arguments_digest,
            arguments=what.arguments,
            detail=what.approval_id,
        )
        if ledger is None or not ledger.ride(Riding(entry)):
            await log.append([entry])

    return called
