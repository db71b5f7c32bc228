"""The whole admin API, over its rooms."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import Router
from litestar.di import Provide

from app.api.admin import approvals, audit, credentials, elicitations, servers
from app.api.admin.rooms import Admin


def routers(admin: Admin | None) -> Sequence[Router]:
    """The handlers; none where there is nothing to administer."""
    if admin is None:
        return ()

    def provide() -> Admin:
        return admin

    inside = [
        servers.router(),
        credentials.router(),
        credentials.own(),
        credentials.public(),
        approvals.router(),
        elicitations.router(),
        audit.router(),
    ]
    return [Router("/", route_handlers=inside, dependencies={"admin": Provide(provide, sync_to_thread=False)})]
