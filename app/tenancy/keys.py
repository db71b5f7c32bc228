"""Keys: how one is made, and what is kept of it."""

from __future__ import annotations

import hashlib
import secrets

from msgspec import Struct

from app.tenancy.principal import Scope

PREFIX = "shp_"


class Key(Struct, frozen=True, kw_only=True):
    """A key as it is shown in lists: everything but the key. Times are in seconds since the epoch."""

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def valid(self, now: float) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_secret() -> str:
    """A key nobody has: 256 random bits, in characters that need no quoting."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(presented: str) -> bytes:
    """What is kept of a key, and what a presented one is looked up by."""
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
