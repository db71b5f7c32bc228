"""What the admin API needs from the rooms below."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from app.mcp.admin import McpAdmin
from app.mcp.approval_store import SqlApprovals
from app.mcp.elicitation_store import SqlElicitations
from app.mcp.keeping import Keeping
from app.tenancy.audit import AuditLog


class Admin(Struct, frozen=True, kw_only=True):
    """Everything an admin may use. `now` is in seconds since the epoch."""

    mcp: McpAdmin
    keeping: Keeping
    approvals: SqlApprovals
    elicitations: SqlElicitations
    audit: AuditLog
    now: Callable[[], float]
