"""`/admin/v1/audit`: what was done in the tenant's name."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Struct, structs

from app.api.admin.audit_lines import MEDIA, Format, head, lines
from app.api.admin.rooms import Admin
from app.api.admin.servers import Asking, who
from app.api.desk import MOST
from app.tenancy.audit import Entry, Filter

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="Most entries to return.")]
Before = Annotated[
    int | None, QueryParameter(ge=0, le=MOST, description="Number of the last entry of the page before.")
]
Text = Annotated[str | None, QueryParameter(description="Only entries with this value.")]
Form = Annotated[Format, QueryParameter(name="format", description="JSON lines, or CSV for spreadsheets.")]
Moment = Annotated[float | None, QueryParameter(description="In seconds since the epoch.")]


class Page(Struct, frozen=True):
    """Entries, the newest first."""

    data: tuple[Entry, ...]
    has_more: bool


def moments(since: Moment = None, until: Moment = None) -> Filter:
    """The entries of a time."""
    return Filter(since=since, until=until)


def wanted(
    within: NamedDependency[Filter],
    action: Text = None,
    server: Text = None,
    tool: Text = None,
    principal: Text = None,
    decision: Text = None,
    outcome: Text = None,
) -> Filter:
    """The entries that are asked for."""
    asked = {"action": action, "server": server, "tool": tool, "principal": principal}
    return structs.replace(within, **asked, decision=decision, outcome=outcome)


@get("/", summary="Read the audit log")
async def read(
    request: Asking,
    admin: NamedDependency[Admin],
    only: NamedDependency[Filter],
    limit: Limit = 50,
    before: Before = None,
) -> Page:
    """Entries that agree with everything asked for, the newest first."""
    found = await admin.audit.read(who(request).tenant, only, limit=limit + 1, before=before)
    return Page(tuple(found[:limit]), len(found) > limit)


@get("/export", summary="Export the audit log")
async def export(
    request: Asking, admin: NamedDependency[Admin], only: NamedDependency[Filter], form: Form = "jsonl"
) -> Stream:
    """All entries that agree with everything asked for, the oldest first: a JSON object a line, or CSV with a head."""
    tenant = who(request).tenant

    async def written() -> AsyncGenerator[bytes]:
        yield head(form)
        async for page in admin.audit.export(tenant, only):
            yield lines(form, page)

    named = {"content-disposition": f'attachment; filename="audit.{form}"'}
    return Stream(written(), media_type=MEDIA[form], headers=named)


def router() -> Router:
    """The handlers of the log."""
    return Router(
        "/admin/v1/audit",
        route_handlers=[read, export],
        dependencies={
            "within": Provide(moments, sync_to_thread=False),
            "only": Provide(wanted, sync_to_thread=False),
        },
        tags=["Audit"],
    )
