"""Who is asking. Every room takes the tenant as an argument; this is the one place that finds out which it is."""

from __future__ import annotations

from litestar.types import Scope

DEFAULT_TENANT = "default"


def tenant_of(_scope: Scope) -> str:
    """The tenant of a request. Without authentication everyone is the same one."""
    return DEFAULT_TENANT
