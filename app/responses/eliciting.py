"""The port for calls that have asked the user something, and wait for the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from app.turn.events import Approved
from app.turn.items import Question


class Asking(Struct, frozen=True):
    """What a call comes to instead of a result: it asks the user.

    `state` is what the tools need to go on with it, and nobody else's business. `lasts` is for how many seconds they
    can, where that is bounded.
    """

    questions: tuple[Question, ...]
    state: bytes
    lasts: float | None = None


class Elicitation(Struct, frozen=True, kw_only=True):
    """One call that waits for answers. `principal` asked for the response `response_id`; `tool` is the name that
    requests know. Times are in seconds since the epoch."""

    id: str
    principal: str
    response_id: str
    server_label: str
    tool: str
    arguments: str
    questions: tuple[Question, ...]
    state: bytes
    approved: Approved | None = None
    created_at: float
    expires_at: float


class Elicitations(Protocol):
    """The calls that wait for answers. Each is gone on with once, whatever restarts in between."""

    async def open(self, tenant: str, elicitations: Sequence[Elicitation]) -> None:
        """Remember calls that wait. All of them or none; raises `Unavailable`."""
        ...

    async def find(self, tenant: str, elicitation_id: str, principal: str) -> Elicitation:
        """The call, if it can still be gone on with.

        Raises `NotFound` (also for another principal's), and `Conflict` with code `elicitation_already_answered` or
        `elicitation_expired`.
        """
        ...

    async def consume(self, tenant: str, elicitation_id: str, principal: str) -> None:
        """Use it up: nobody goes on with the call a second time. Raises what `find` raises."""
        ...
