"""What is told of each tool call, for the log that a tenant's admin reads. Who writes it down is decided elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct

from app.responses.ledger import Ledger


class Called(Struct, frozen=True, kw_only=True):
    """A tool call that was made or refused.

    `tool` is the server's own name; `decision` what the rules said; `outcome` is "ok", an error's kind or "cancelled".
    `arguments` are only told where the tenant wants them kept; their SHA-256 always is.
    """

    tenant: str
    principal: str
    server: str
    tool: str
    decision: str
    outcome: str
    seconds: float
    arguments_digest: str
    arguments: str | None = None
    approval_id: str = ""


# Where there is a ledger, it is stored with what the run says of the call.
Tell: TypeAlias = Callable[[Called, Ledger | None], Awaitable[None]]


async def tell_nobody(_called: Called, _ledger: Ledger | None) -> None:
    """Nothing is written down."""


def digest(arguments: str) -> str:
    """What stands for a call's exact arguments where they may not be kept or shown."""
    return hashlib.sha256(arguments.encode("utf-8", "surrogatepass")).hexdigest()
