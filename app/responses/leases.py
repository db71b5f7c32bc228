"""Who may write about a run: one process at a time, until another takes it over."""

from __future__ import annotations

from msgspec import Struct

from app.turn.errors import GatewayError


class Lease(Struct, frozen=True):
    """The right to write about a run. Every new owner has a higher `fence`; a write under a lower one is refused."""

    tenant: str
    response_id: str
    fence: int


class LeaseLost(GatewayError):
    """Another process makes this response now; nothing may be written about it here any more."""

    status = 409
    code = "run_taken_over"
