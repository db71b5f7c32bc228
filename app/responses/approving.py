"""The port for calls that wait for a person's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from app.turn.items import Terms


class Approval(Struct, frozen=True, kw_only=True):
    """One call that waits for a person's word, exactly as it would be made.

    `principal` asked for the response `response_id`. `tool` is the server's own name. Times are in seconds since the
    epoch. `approved` is the word once given.
    """

    id: str
    principal: str
    response_id: str
    server_label: str
    tool: str
    arguments: str
    terms: Terms
    created_at: float
    expires_at: float
    approved: bool | None = None


class Approvals(Protocol):
    """The calls that wait. Each is answered once, whatever restarts in between."""

    async def open(self, tenant: str, approvals: Sequence[Approval]) -> None:
        """Remember calls that wait. All of them or none; raises `Unavailable`."""
        ...

    async def consume(self, tenant: str, approval_id: str, principal: str, *, approve: bool) -> Approval:
        """Use the approval up: nobody gets it a second time. `approved` of what is returned is what holds: `approve`,
        unless somebody whose word counts more has refused.

        Raises `NotFound` (also for another principal's), and `Conflict` with code `approval_already_used`,
        `approval_expired`, or `approval_pending` while another person has to agree first; that does not use it up.
        """
        ...
