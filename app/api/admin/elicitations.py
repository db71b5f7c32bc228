"""`/admin/v1/elicitations`: calls that have asked their user something. Only the one who asked for the call answers."""

from __future__ import annotations

from typing import Literal

from litestar import Router, get
from litestar.di import NamedDependency
from msgspec import Struct

from app.api.admin.approvals import All
from app.api.admin.rooms import Admin
from app.api.admin.servers import Asking, who
from app.api.desk import Limit
from app.mcp.elicitations import Unanswered


class QuestionView(Struct, frozen=True):
    """What is asked. With a `url` the user is sent there."""

    id: str
    mode: Literal["form", "url"]
    message: str
    url: str | None


class ElicitationView(Struct, frozen=True, kw_only=True):
    """A call that waits for answers. Times are in seconds since the epoch."""

    id: str
    principal: str
    response_id: str
    server_label: str
    tool: str
    questions: tuple[QuestionView, ...]
    created_at: float
    expires_at: float
    used: bool


class Elicitations(Struct, frozen=True):
    """Calls that wait, the newest first."""

    data: tuple[ElicitationView, ...]


@get("/", summary="List calls that wait for their user's answers")
async def list_elicitations(
    request: Asking, admin: NamedDependency[Admin], limit: Limit = 20, everything: All = False
) -> Elicitations:
    """What waits, the newest first."""
    waiting = await admin.elicitations.waiting(who(request).tenant, limit=limit, everything=everything)
    return Elicitations(tuple(_view(each) for each in waiting))


def router() -> Router:
    """The handlers of elicitations."""
    return Router("/admin/v1/elicitations", route_handlers=[list_elicitations], tags=["MCP administration"])


def _view(kept: Unanswered) -> ElicitationView:
    asked = kept.elicitation
    return ElicitationView(
        id=asked.id,
        principal=asked.principal,
        response_id=asked.response_id,
        server_label=asked.server_label,
        tool=asked.tool,
        questions=tuple(
            QuestionView(each.id, "url" if each.url else "form", each.message, each.url or None)
            for each in asked.questions
        ),
        created_at=asked.created_at,
        expires_at=asked.expires_at,
        used=kept.used,
    )
