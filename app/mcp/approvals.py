"""Calls that wait for a person's word: what may happen to one, and the twin that keeps them in memory."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from app.responses.ports import Approval, Clock
from app.turn.errors import Conflict, Forbidden, NotFound


class Waiting(Struct, frozen=True):
    """An approval as it is kept. `word` is what a person other than its principal said, `used` that it was answered.

    `second_person`: without such a person's word it cannot be used.
    """

    approval: Approval
    second_person: bool = False
    word: bool | None = None
    decided_by: str | None = None
    used: bool = False


def answered(waiting: Waiting, now: float, *, approve: bool) -> Approval:
    """The approval once its principal has answered `approve`.

    Raises `Conflict`: it was answered before, its time is over, or another person has to agree first.
    """
    approval = waiting.approval
    if waiting.used:
        message = f"Approval request '{approval.id}' has already been answered."
        raise Conflict(message, code="approval_already_used", param="input")
    if now >= approval.expires_at:
        raise Conflict(f"Approval request '{approval.id}' has expired.", code="approval_expired", param="input")
    if approve and waiting.second_person and waiting.word is None:
        message = f"Approval request '{approval.id}' waits for the word of another person."
        raise Conflict(message, code="approval_pending", param="input")
    return structs.replace(approval, approved=approve and waiting.word is not False)


def decided(waiting: Waiting, now: float, person: str, *, approve: bool) -> Waiting:
    """The approval once `person` has given a word. Raises `Forbidden` for who asked, `Conflict` when it is too late."""
    approval = waiting.approval
    if not person or person == approval.principal:
        message = "An approval takes another person than the one who asked for the call."
        raise Forbidden(message, code="approval_needs_another_person")
    if waiting.used or waiting.word is not None:
        raise Conflict(f"Approval request '{approval.id}' has already been answered.", code="approval_already_used")
    if now >= approval.expires_at:
        raise Conflict(f"Approval request '{approval.id}' has expired.", code="approval_expired")
    return structs.replace(waiting, word=approve, decided_by=person)


def unknown(approval_id: str) -> NotFound:
    """There is no such approval, or it is somebody else's."""
    return NotFound(f"Approval request with id '{approval_id}' not found.", param="input")


class MemoryApprovals:
    """The `Approvals` port, for as long as the process lives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], Waiting] = {}

    async def open(self, tenant: str, approvals: Sequence[Approval]) -> None:
        """Remember calls that wait."""
        self._kept |= {(tenant, approval.id): Waiting(approval) for approval in approvals}

    async def consume(self, tenant: str, approval_id: str, principal: str, *, approve: bool) -> Approval:
        """Use the approval up. Raises `NotFound`, `Conflict`."""
        waiting = self._kept.get((tenant, approval_id))
        if waiting is None or waiting.approval.principal != principal:
            raise unknown(approval_id)
        approval = answered(waiting, self._clock.now(), approve=approve)
        self._kept[tenant, approval_id] = structs.replace(waiting, used=True)
        return approval
