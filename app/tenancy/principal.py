"""Who is asking, as a value that is passed on: a tenant, the key that speaks for it, and what that key may do."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

Scope: TypeAlias = Literal["data", "admin"]

DEFAULT_TENANT = "default"


class Principal(Struct, frozen=True):
    """Somebody of a tenant. `id` is the key's id, empty where nobody has to have one.

    `data`: use models, tools and stored responses. `admin`: manage the tenant's servers, policies and approvals.
    """

    tenant: str
    id: str = ""
    scopes: frozenset[Scope] = frozenset(("data", "admin"))


ANYONE = Principal(DEFAULT_TENANT)
