"""`/admin/v1/approvals`: calls that wait for a person's word, for another person than the one who asked."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from app.api.admin.rooms import Admin
from app.api.admin.servers import Asking, who
from app.api.desk import Limit
from app.mcp.approvals import Waiting
from app.tenancy.audit import Entry

All = Annotated[bool, QueryParameter(name="all", description="Also those that were answered or have expired.")]


class ApprovalView(Struct, frozen=True, kw_only=True):
    """A call that waits, exactly as it would be made. Times are in seconds since the epoch.

    `word` is what another person said; with `second_person` the call waits for it. A call over `/mcp` has no
    `response_id`.
    """

    id: str
    principal: str
    response_id: str
    server_label: str
    tool: str
    arguments: str
    created_at: float
    expires_at: float
    second_person: bool
    word: bool | None
    decided_by: str | None
    used: bool


class Approvals(Struct, frozen=True):
    """Calls that wait, the newest first."""

    data: tuple[ApprovalView, ...]


@get("/", summary="List calls that wait for approval")
async def list_approvals(
    request: Asking, admin: NamedDependency[Admin], limit: Limit = 20, everything: All = False
) -> Approvals:
    """The newest first."""
    waiting = await admin.approvals.waiting(who(request).tenant, limit=limit, everything=everything)
    return Approvals(tuple(_view(each) for each in waiting))


@post("/{approval_id:str}/approve", status_code=200, summary="Agree to a call of somebody else")
async def approve(request: Asking, admin: NamedDependency[Admin], approval_id: FromPath[str]) -> ApprovalView:
    """Agree. The call is made when the one who asked continues the response, or makes it again over `/mcp`."""
    return await _decide(request, admin, approval_id, yes=True)


@post("/{approval_id:str}/deny", status_code=200, summary="Refuse a call of somebody else")
async def deny(request: Asking, admin: NamedDependency[Admin], approval_id: FromPath[str]) -> ApprovalView:
    """Refuse; whatever the one who asked says, the call is not made."""
    return await _decide(request, admin, approval_id, yes=False)


def router() -> Router:
    """The handlers of approvals."""
    return Router("/admin/v1/approvals", route_handlers=[list_approvals, approve, deny], tags=["MCP administration"])


async def _decide(request: Asking, admin: Admin, approval_id: str, *, yes: bool) -> ApprovalView:
    by = who(request)
    waiting = await admin.approvals.decide(by.tenant, approval_id, by.principal, approve=yes)
    asked = waiting.approval
    entry = Entry(
        tenant=by.tenant,
        at=admin.now(),
        principal=by.principal,
        action="mcp.approval.approve" if yes else "mcp.approval.deny",
        server=asked.server_label,
        tool=asked.tool,
        detail=approval_id,
    )
    await admin.audit.append([entry])
    return _view(waiting)


def _view(waiting: Waiting) -> ApprovalView:
    asked = waiting.approval
    return ApprovalView(
        id=asked.id,
        principal=asked.principal,
        response_id=asked.response_id,
        server_label=asked.server_label,
        tool=asked.tool,
        arguments=asked.arguments,
        created_at=asked.created_at,
        expires_at=asked.expires_at,
        second_person=waiting.second_person,
        word=waiting.word,
        decided_by=waiting.decided_by,
        used=waiting.used,
    )
